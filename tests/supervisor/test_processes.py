"""Which processes of a command a signal reaches, with real processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lightning_green.ledger.run_directory import ATTEMPT_VARIABLE, RUN_DIR_VARIABLE, SUPERVISED_VARIABLE
from lightning_green.supervisor.processes import CommandProcesses, describe
from tests.helpers.processes import environment, green, run_to_the_end

PROCESS = """
import os, signal, sys, time
from pathlib import Path
from lightning_green.ledger.run_directory import keep_ranks_file_open
folder = Path(sys.argv[1])
def report(name, numbers):
    for number in numbers:
        signal.signal(number, lambda number, frame: (folder / f"{name}.{signal.Signals(number).name}").touch())
    (folder / name).touch()
def start(name, body, **options):
    if os.fork() == 0:
        if options.get("session"):
            os.setsid()
        body(name)
        while True:
            time.sleep(0.05)
def rank(name):
    keep_ranks_file_open()
    report(name, [signal.SIGTERM, signal.SIGINT] + ([signal.SIGUSR1] if sys.argv[2] == "requeue" else []))
    start(f"worker-of-{name}", lambda name: report(name, [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]))
start("first", rank)
start("second", rank, session=True)
start("background", lambda name: report(name, [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]))
report("leader", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
while True:
    time.sleep(0.05)
"""
NAMES = {"leader", "first", "second", "worker-of-first", "worker-of-second", "background"}


@pytest.fixture
def command(tmp_path, request):
    """Start a command of six processes; return it with the folder in which they report."""
    variables = {RUN_DIR_VARIABLE: str(tmp_path), SUPERVISED_VARIABLE: "1", ATTEMPT_VARIABLE: f"{tmp_path.name}/1"}
    arguments = [sys.executable, "-c", PROCESS, tmp_path, request.param]
    with subprocess.Popen(arguments, env=environment(**variables), start_new_session=True) as leader:
        processes = CommandProcesses(tmp_path, f"{tmp_path.name}/1", leader.pid)
        try:
            wait_for(lambda: {path.name for path in tmp_path.iterdir()} >= NAMES)
            yield processes
        finally:
            processes.send(signal.SIGKILL)
            leader.wait()
            wait_for(lambda: not CommandProcesses(tmp_path).are_running())


def wait_for(happened):
    limit = time.monotonic() + 30.0
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.02)


def reached(folder):
    return {path.name for path in folder.iterdir() if ".SIG" in path.name}


@pytest.mark.parametrize("command", ["plain"], indirect=True)
def test_signal_to_stop_reaches_all_but_the_helpers_of_ranks(command, tmp_path):
    command.stop(signal.SIGHUP)
    expected = {f"{name}.SIGTERM" for name in ("leader", "first", "second", "background")}
    wait_for(lambda: reached(tmp_path) >= expected)
    command.stop(signal.SIGINT)
    expected |= {name.replace("TERM", "INT") for name in expected}
    wait_for(lambda: reached(tmp_path) >= expected)
    assert reached(tmp_path) == expected


@pytest.mark.parametrize("command", ["requeue"], indirect=True)
def test_requeue_signal_reaches_only_ranks_that_handle_it(command, tmp_path):
    command.stop(signal.SIGUSR1)
    wait_for(lambda: reached(tmp_path) == {"first.SIGUSR1", "second.SIGUSR1"})


@pytest.mark.parametrize("command", ["plain"], indirect=True)
def test_requeue_signal_that_no_rank_handles_stops(command, tmp_path):
    command.stop(signal.SIGUSR1)
    expected = {f"{name}.SIGTERM" for name in ("leader", "first", "second", "background")}
    wait_for(lambda: reached(tmp_path) == expected)


@pytest.mark.parametrize("command", ["plain"], indirect=True)
@pytest.mark.parametrize("all_attempts", [False, True])
def test_processes_in_the_background_are_no_ranks_and_no_helpers_of_ranks(command, tmp_path, all_attempts):
    found = CommandProcesses(tmp_path, None if all_attempts else f"{tmp_path.name}/1").in_background()
    assert len(found) == 2  # the command itself, which is still running here, and the one in the background
    assert CommandProcesses(tmp_path, "other/1").in_background() == []
    assert CommandProcesses(tmp_path / "other").in_background() == []


def test_processes_are_named():
    assert describe([os.getpid()]) in (f"python ({os.getpid()})", f"pytest ({os.getpid()})", f"python3 ({os.getpid()})")


def test_first_process_of_a_container_removes_ended_processes(tmp_path):
    isolated = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*isolated, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("a namespace of process numbers cannot be created here")
    script = "(sleep 0.2 &); sleep 2.5; cat /proc/[0-9]*/stat | grep -c ') Z' > zombies; exit 0"
    code, output = run_to_the_end([*isolated, *green("run", "--", "bash", "-c", script)], tmp_path)
    assert code == 0, output
    assert (tmp_path / "zombies").read_text() == "0\n"
