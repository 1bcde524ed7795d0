"""Other processes as the system describes them."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from lightning_green.utilities.processes import ProcessId

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def sleeper():
    process = subprocess.Popen(SLEEP)
    yield process
    process.kill()
    process.wait()


def until(happened):
    limit = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_running_stopped_and_ended_process_are_distinguished(sleeper):
    process = ProcessId.of(sleeper.pid)
    assert (process.is_local, process.is_gone, process.is_stopped) == (True, False, False)
    sleeper.send_signal(signal.SIGSTOP)
    until(lambda: process.is_stopped)
    assert not process.is_gone
    sleeper.kill()
    until(lambda: process.is_gone)  # although its parent has not read its exit code
    assert not process.is_stopped


def test_later_process_with_the_same_number_is_another_one():
    own = ProcessId.of(os.getpid())
    assert replace(own, started="1").is_gone
    assert not own.is_gone
    assert str(own) == f"process {os.getpid()} on {own.host.split()[0]}"


def test_state_of_a_process_of_another_machine_is_unknown():
    other = replace(ProcessId.of(os.getpid()), host="another")
    assert (other.is_local, other.is_gone, other.is_stopped) == (False, None, False)


def test_state_is_unknown_where_the_system_does_not_show_it():
    assert replace(ProcessId.of(os.getpid()), started="").is_gone is None
