"""Processes of a training that outlive their command, with real processes."""

import os
import subprocess
import sys
from contextlib import suppress

import pytest

from lightning_green.ledger.run_directory import RANKS_FILE
from lightning_green.supervisor import supervisor
from lightning_green.supervisor.command import Command
from lightning_green.supervisor.run_directory import open_run_directory
from lightning_green.supervisor.supervisor import Supervisor
from lightning_green.supervisor.survivors import running_ranks
from lightning_green.utilities.clock import SimulatedClock
from tests.helpers.processes import ROOT, Process
from tests.helpers.traces import START

RANK = """
import os, signal, sys, time
from pathlib import Path
from lightning_green.ledger.run_directory import keep_ranks_file_open
folder, number, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def stop(*_):
    (folder / f"saved-{number}").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if kind == "stuck" else stop)
if kind != "daemon":
    keep_ranks_file_open()
(folder / f"pid-{number}").write_text(str(os.getpid()))
if kind == "workers":  # as those of a DataLoader, and a program that the script has forked
    for _ in range(2):
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, lambda *_: (folder / "worker-stopped").touch())
            time.sleep(20.0)
            os._exit(0)
if kind == "stopped":
    os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(2.0 if kind == "short" else 100.0)
"""
COMMAND = """
import os, signal, subprocess, sys, time
from pathlib import Path
from lightning_green.utilities.processes import ProcessId
folder, ending, kinds = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
if (folder / "second").exists() or any(folder.glob("pid-*")):
    pids = [int((folder / f"pid-{number}").read_text()) for number in range(len(kinds))]
    alive = [kind for kind, pid in zip(kinds, pids) if not ProcessId.of(pid).is_gone and ProcessId.of(pid).started]
    (folder / "second").write_text(" ".join(alive))
    sys.exit(0)
for number, kind in enumerate(kinds):
    subprocess.Popen([sys.executable, folder / "rank.py", folder, str(number), kind], start_new_session=True)
while len([path for path in folder.glob("pid-*") if path.read_text()]) < len(kinds):
    time.sleep(0.05)
time.sleep(0.2)
if ending == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that supervises a command with ranks; the remaining ones are killed after the test."""
    monkeypatch.setattr(supervisor, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "rank.py").write_text(RANK)
    (tmp_path / "command.py").write_text(COMMAND)

    def supervise(ending, *kinds):
        messages = []
        directory = open_run_directory(tmp_path / "run", fresh=False, print_line=messages.append)
        words = (sys.executable, str(tmp_path / "command.py"), str(tmp_path), ending, *kinds)
        try:
            clock = SimulatedClock(START).spec()
            command = Command(words, os.getcwd(), clock)
            code = Supervisor(command, directory, print_line=messages.append, stop_seconds=1.5).run()
        finally:
            directory.unlock()
        return code, "\n".join(messages)

    yield supervise
    for path in tmp_path.glob("pid-*"):
        with suppress(OSError):
            os.kill(int(path.read_text()), 9)


def test_ranks_of_a_killed_command_save_or_are_killed_before_the_next_start(run, tmp_path):
    code, output = run("killed", "rank", "stuck", "stopped", "daemon")
    assert code == 0
    assert (tmp_path / "second").read_text() == "daemon"  # another process of the script is left alone
    assert sorted(path.name for path in tmp_path.glob("saved-*")) == ["saved-0", "saved-2"]
    assert "The command has ended, and 3 processes of its training are still running: " in output
    assert "1 process of its training is still running after 2 s. Killing." in output


def test_forked_processes_of_a_rank_are_no_ranks(run, tmp_path):
    code, output = run("killed", "workers")
    assert code == 0
    assert "The command has ended, and 1 process of its training is still running: " in output
    assert (tmp_path / "saved-0").exists()
    assert not (tmp_path / "worker-stopped").exists()


def test_training_in_the_background_of_a_command_that_ended_normally_is_awaited(run, tmp_path):
    code, output = run("normally", "short")
    assert code == 0
    assert "The command has ended, and its training is still running. Waiting for its end." in output
    assert not any(tmp_path.glob("saved-*"))


def test_only_processes_whose_environment_names_the_directory_are_ranks(tmp_path):
    home = tmp_path / "run"
    home.mkdir()
    (tmp_path / "rank.py").write_text(RANK)
    line = [sys.executable, tmp_path / "rank.py", tmp_path]
    variables = {"LIGHTNING_GREEN_RUN_DIR": str(home), "LIGHTNING_GREEN_SUPERVISED": "1"}
    with Process([*line, "0", "rank"], tmp_path, **variables) as rank:
        rank.until(lambda: running_ranks(home))
        reader = subprocess.Popen(["tail", "-f", home / RANKS_FILE], stdout=subprocess.DEVNULL)
        try:
            assert running_ranks(home) == [rank.process.pid]
        finally:
            reader.kill()
            reader.wait()
    assert running_ranks(home) == []
