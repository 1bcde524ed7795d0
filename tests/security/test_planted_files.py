"""Files and records in a run directory that would make this process write, read or print something of the user."""

import json
import os
import subprocess
import sys

import pytest

from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.run.loggers import continue_loggers
from lightning_green.supervisor.child import ChildProcess, child_environment, is_child_running
from lightning_green.supervisor.command import Command
from lightning_green.supervisor.signals import Signals
from lightning_green.utilities.clock import SimulatedClock, SystemClock, clock_from_record
from tests.helpers.trainers import quiet_trainer

START = "2024-05-02T00:00:00+00:00"


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "victim"
    path.write_text("# precious, and more than twenty bytes long\n")
    return path


def test_link_as_the_position_of_a_clock_is_not_followed(tmp_path, victim, caplog):
    (tmp_path / "clock").symlink_to(victim)
    clock = SimulatedClock(START)
    clock.bind(tmp_path)
    clock.advance("batch")
    assert victim.read_text().startswith("# precious")
    assert "precious" not in caplog.text
    assert "is a symbolic link, not a file" in caplog.text
    assert clock.now().minute == 1


@pytest.mark.parametrize("kind", ["fifo", "large", "text"])
def test_odd_position_of_a_clock_is_ignored(tmp_path, kind, caplog):
    path = tmp_path / "clock"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_text("\x1b[2Jsecret" if kind == "text" else "1" * 10_000_000)
    clock = SimulatedClock(START)
    clock.look(tmp_path)
    assert clock.now().isoformat() == START
    assert "\x1b" not in caplog.text


@pytest.mark.parametrize(
    "spec",
    [3, {}, "", "os:system", "simulated:start=x", "simulated:start=2024-05-02T00:00:00Z,batch=x", "\x1b" * 99],
)
def test_odd_clock_of_a_record_is_one_clean_warning(spec, caplog):
    assert isinstance(clock_from_record(spec), SystemClock)
    (record,) = caplog.records
    assert record.getMessage().isprintable()
    assert len(record.getMessage()) < 200


def start(home, *words):
    with Signals() as signals:
        environment = child_environment(home, "s/1", False, None)
        return ChildProcess(Command(words, str(home)), home, environment).run(lambda: None, signals)


@pytest.mark.parametrize("name", ["stderr.log", "child.lock"])
def test_output_of_the_command_is_not_written_through_a_link(tmp_path, victim, name):
    home = tmp_path / "run"
    home.mkdir()
    (home / name).symlink_to(victim)
    before = victim.read_bytes()
    assert not is_child_running(home)
    assert start(home, sys.executable, "-c", "import sys; print('evil', file=sys.stderr)").code == 0
    assert victim.read_bytes() == before


def test_output_of_the_command_is_private(tmp_path):
    assert start(tmp_path, sys.executable, "-c", "import sys; print('x', file=sys.stderr)").code == 0
    assert (tmp_path / "stderr.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("version", ["../../evil", "/evil", "..", "a/b", "", {"a": 1}, "x\x1b"])
def test_record_names_no_directory_of_a_logger(tmp_path, version):
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(tmp_path / "logs", name="mine")
    continue_loggers(quiet_trainer(tmp_path, logger=logger), {"0.0.CSVLogger": version}, 0)
    logger.log_metrics({"a": 1.0}, step=0)
    logger.save()
    (written,) = tmp_path.rglob("metrics.csv")
    assert written == tmp_path / "logs" / "mine" / "version_0" / "metrics.csv"


@pytest.mark.parametrize("run_id", ["../../x", "a/b", 3, None, ""])
def test_record_names_no_path_as_the_id_of_a_wandb_run(tmp_path, run_id):
    directory = RunDirectory(tmp_path)
    directory.record["loggers"] = {"0.0.WandbLogger": run_id}
    directory.save()
    assert "WANDB_RUN_ID" not in child_environment(tmp_path, "s/1", False, None)


@pytest.mark.slow
def test_supervisor_survives_a_planted_clock_and_uses_the_real_one(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"schema": 1, "run_id": "a", "clock": {"class_path": "os.system"}}))
    command = [sys.executable, "-m", "lightning_green", "run", "--run-dir", str(run), "--max-restarts", "0", "--"]
    result = subprocess.run([*command, "false"], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert "Traceback" not in result.stderr
