"""The handlers of the supervisor in this process, and Ctrl-Z in a child process."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from lightning_green.supervisor.signals import Signals
from tests.helpers.processes import environment


@pytest.fixture
def signals():
    with Signals() as found:
        yield found


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signal_is_recorded_and_wakes(signals, number):
    assert not signals.is_set()
    assert not signals.wait(0.0)
    threading.Timer(0.1, send, [number]).start()
    assert signals.wait(60.0)
    assert signals.is_set()
    assert signals.stop == number
    assert (signals.take(), signals.take()) == ([number], [])


def test_every_signal_is_taken_and_the_first_is_the_reason(signals):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
        send(number)
    assert signals.stop == signal.SIGTERM
    assert signals.take() == [signal.SIGTERM, signal.SIGINT, signal.SIGINT]


def test_end_of_a_child_ends_only_the_wait_for_it(signals):
    began = time.monotonic()
    with subprocess.Popen(["true"]):
        signals.wait_for_child(60.0)
        assert time.monotonic() - began < 30.0
    with subprocess.Popen(["true"]):
        assert not signals.wait(0.3)
    assert time.monotonic() - began >= 0.3


def test_requeue_signals_are_those_of_slurm(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with Signals():
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with Signals() as signals:
        send(signal.SIGUSR1)
        assert signals.stop == signal.SIGUSR1
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_ignored_signal_stays_ignored_and_handlers_are_restored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:  # as under `nohup`
            send(signal.SIGHUP)
            assert not signals.is_set()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


SUSPENDED = """
import os, signal, sys, time
from lightning_green.supervisor.signals import Signals
with Signals() as signals:
    signals.send = lambda number: print(signal.Signals(number).name, flush=True)
    print("ready", flush=True)
    while not signals.wait(0.05):
        pass
"""


def test_ctrl_z_suspends_the_command_and_the_supervisor():
    started = subprocess.Popen(
        [sys.executable, "-c", SUSPENDED], stdout=subprocess.PIPE, text=True, env=environment(), process_group=0
    )
    with started as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGTSTP)
            assert process.stdout.readline() == "SIGSTOP\n"
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            process.send_signal(signal.SIGCONT)
            assert process.stdout.readline() == "SIGCONT\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
