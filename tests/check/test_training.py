"""Processes of a check that fail or take too long."""

import sys
import time
from pathlib import Path

import pytest

from lightning_green.check import Check, CheckFailedError


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["no-such-command"], "cannot be started"),
        ([sys.executable, "-c", "raise SystemExit('no data')"], r"exit code 1 \(uninterrupted\)(.|\n)*no data"),
        ([sys.executable, "-c", "pass"], "No `Trainer.fit`"),
    ],
)
def test_what_cannot_be_checked_is_reported(tmp_path, monkeypatch, command, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckFailedError, match=message):
        Check(command).run()


def test_a_process_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckFailedError, match="more than 1 s"):
        Check([sys.executable, "-c", "import time; time.sleep(60)"], timeout=1).run()


def test_processes_of_a_command_that_takes_too_long_are_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pid").touch()
    with pytest.raises(CheckFailedError, match="more than 2 s"):
        Check(["bash", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"], timeout=2).run()
    number = int((tmp_path / "pid").read_text())
    for _ in range(100):  # until the system has removed it
        if not Path(f"/proc/{number}/cmdline").exists() or not Path(f"/proc/{number}/cmdline").read_bytes():
            return
        time.sleep(0.1)
    pytest.fail("a process of the command is still running")
