"""``lightning-green status``: JSON, and the watch in a pipe."""

import json
import signal

import pytest
from typer.testing import CliRunner

from lightning_green.cli.main import app
from lightning_green.cli.status import watch_runs
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.report.run_status import read_run_status
from lightning_green.report.status import status_text
from tests.helpers.fake_runs import FakeRun, at
from tests.helpers.processes import Process, green


@pytest.fixture
def run(tmp_path):
    return FakeRun(tmp_path / "run").add("started", 0)


def invoke(*arguments):
    return CliRunner().invoke(app, ["status", *map(str, arguments)])


def test_json_is_one_object_with_each_run_of_the_command(run):
    FakeRun(run.folder.path / "runs" / "2").add("started", 0).add("finished", 8)
    found = json.loads(invoke(run.folder.path, "--json").stdout)
    assert [(one["state"], one["steps"]) for one in found["runs"]] == [("killed", 0), ("finished", 8)]


def test_text_is_that_of_the_report(run):
    assert invoke(run.folder.path).stdout == status_text(RunDirectory(run.folder.path)) + "\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json", "--watch"], "cannot be combined"),
        (["--interval", "soon"], "`--interval` should be a duration"),
        (["--watch", "--interval", "0s"], "`--interval` should be at least 0.1 s, got '0s'"),
    ],
)
def test_wrong_usage(run, options, message):
    result = invoke(run.folder.path, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_watch_prints_a_block_for_each_change_and_ends_with_the_run(run, capsys):
    path = run.folder.path
    steps = iter(
        [
            lambda: run.add("paused", 40, until=at(9)),
            lambda: run.clock.sleep(600),  # only the time changes
            lambda: run.add("finished", 80),
        ]
    )

    def read(earlier):
        found = [read_run_status(path, earlier=earlier[0] if earlier else None)]
        next(steps, lambda: None)()
        return found

    watch_runs(read, 0.0)
    blocks = capsys.readouterr().out.split("\n\n")
    states = [line for block in blocks for line in block.splitlines() if line.startswith("State")]
    assert [state.split()[1] for state in states] == ["killed", "exited", "finished"]
    assert "\x1b" not in "".join(blocks)


def test_ctrl_c_ends_the_watch(run, tmp_path):
    command = green("status", run.folder.path, "--watch", "--interval", "0.1s")
    with Process(command, tmp_path) as process:
        process.until(lambda: "Time " in process.printed)
        assert process.kill(signal.SIGINT) == 130
        assert "Traceback" not in process.printed
        assert "Aborted" not in process.printed
