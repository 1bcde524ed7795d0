"""``lightning-green runs`` with real run directories, in a pipe and in terminals of several widths."""

import json
import os

import pytest
from typer.testing import CliRunner

from lightning_green.cli.main import app
from lightning_green.cli.run_table import saving
from lightning_green.report.run_list import RunSummary
from tests.helpers.fake_runs import FakeRun, at


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def folder(tmp_path):
    """Return a directory with a finished run that has waited, an exited one and a damaged one."""
    home = tmp_path / "lightning_green_runs"
    run = FakeRun(home / "finished-1a2b3c4d").add("started", 0).add("sample", 1).add("state", 1, state="held")
    run.add("state", 1).add("finished", 2)
    FakeRun(home / "exited-1a2b3c4d").add("started", 0).add("paused", 40, until=at(9))
    (home / "damaged").mkdir()
    (home / "damaged" / "run.json").write_text("{")
    for age, name in enumerate(("exited-1a2b3c4d", "finished-1a2b3c4d", "damaged")):
        for file in (home / name).iterdir():
            os.utime(file, (1e9 - age, 1e9 - age))
    return home


def invoke(*arguments, **variables):
    return CliRunner().invoke(app, ["runs", *map(str, arguments)], env=variables)


def test_pipe_gets_one_plain_line_for_each_run(folder):
    result = invoke(folder)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout
    head, exited, finished, damaged = result.stdout.splitlines()
    assert head.split() == ["Run", "State", "Steps", "Energy", "Emissions", "Saving", "Waited", "Next"]
    assert exited.split()[:3] == ["exited-1a2b3c4d", "exited", "40"]
    assert exited.endswith("rerun the command, planned for 09:00 UTC, in 7 h")
    assert finished.split()[:2] == ["finished-1a2b3c4d", "finished"]
    assert "1.200 kWh  480.0 gCO2e  -33.3 %" in finished
    assert damaged.startswith("damaged  unreadable  The run in")
    assert all(line == line.rstrip() for line in result.stdout.splitlines())


def test_narrow_output_has_a_block_for_each_run(folder):
    result = invoke(folder, COLUMNS="60")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[0] == "exited-1a2b3c4d  exited"
    assert "saving -33.3 %" in " ".join(result.stdout.split())


def test_default_directories_are_those_of_runs(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    FakeRun(tmp_path / "lightning_green" / "train-1").add("started", 0)
    FakeRun(tmp_path / "other" / "train-2").add("started", 0)
    names = {run["run_dir"].rpartition("/")[2] for run in json.loads(invoke("--json").stdout)["runs"]}
    assert names == {"train-1", "finished-1a2b3c4d", "exited-1a2b3c4d", "damaged"}
    assert "lightning_green/train-1 " in invoke().stdout


def test_json_is_one_object(folder):
    found = json.loads(invoke(folder, "--json").stdout)
    assert found["folders"] == [str(folder)]
    exited, finished, damaged = found["runs"]
    assert finished["saving_pct"] == pytest.approx(-100 / 3)
    assert (exited["state"], exited["until"]) == ("exited", at(9))
    assert (damaged["state"], damaged["energy_kwh"]) == ("unreadable", None)


def test_unknown_values_are_dashes(tmp_path):
    FakeRun(tmp_path / "run").add("started", 0, intensity=None, joules={}).add("sample", 3, intensity=None, joules={})
    (line,) = invoke(tmp_path).stdout.splitlines()[1:]
    assert line.split()[:7] == ["run", "killed", "3", "-", "-", "-", "-"]


def test_names_are_neither_markup_nor_escape_sequences(tmp_path):
    FakeRun(tmp_path / "[red]a[/red] :smile: \x1b[2K").add("started", 0)
    assert "[red]a[/red] :smile: ?[2K" in invoke(tmp_path).stdout
    assert "[red]a[/red] :smile: ?[2K" in invoke(tmp_path, COLUMNS="40").stdout


def test_directory_without_runs_is_no_failure(tmp_path):
    result = invoke(tmp_path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith(f"lightning-green: There is no run in {tmp_path}.")
    assert json.loads(invoke(tmp_path, "--json").stdout) == {"folders": [str(tmp_path)], "runs": []}


def test_missing_directory_is_wrong_usage(tmp_path):
    result = invoke(tmp_path / "missing")
    assert result.exit_code == 2
    assert "is not a directory" in result.stderr


def test_saving_of_less_than_half_of_the_work_is_unknown():
    assert saving(RunSummary("run", "finished", saving_pct=10.0, known_share=0.49)) == "-"
    assert saving(RunSummary("run", "finished", saving_pct=10.0, known_share=0.6)) == "10.0 % (of 60 %)"
