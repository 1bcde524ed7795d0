"""Polling in a process of its own."""

import os
import signal as signals
import subprocess
import sys
import textwrap
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.live import poller
from lightning_green.grid.live.answer import Answer, Point
from lightning_green.grid.live.snapshot import Snapshot
from lightning_green.grid.providers.constant import ConstantSignal
from tests.servers.conftest import NOW, PROVIDERS
from tests.servers.fake_grid import PASSWORD, TOKEN, FakeGrid, solar_day

HOUR = timedelta(hours=1)


def now():
    return datetime.now(timezone.utc)


@pytest.fixture
def grid():
    with FakeGrid(now()) as server:
        yield server


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def child_of(signal):
    return signal._asker._process


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_is_polled_by_another_process(grid, build, name):
    signal = build(name)
    signal.start()
    wait_for(lambda: signal.intensity(now()) is not None)
    assert signal.intensity(now()).value == pytest.approx(solar_day(grid.now))
    assert signal.problem is None
    assert child_of(signal).pid != os.getpid()
    command = Path(f"/proc/{child_of(signal).pid}/cmdline").read_text()
    assert TOKEN not in command
    assert PASSWORD not in command
    child = child_of(signal)
    signal.close()
    assert child.wait(timeout=10) is not None


def test_asks_when_told_and_brings_failures_and_recoveries(grid, build):
    signal = build("charts")
    signal.start()
    grid.faults = {None: "502_html"}
    signal.ask_now()
    wait_for(lambda: signal.problem is not None)
    assert "has a problem of its own (502); the last value stands" in " ".join(signal.news())
    assert signal.news() == []
    assert signal.intensity(now()).value == pytest.approx(solar_day(grid.now))
    grid.faults = {}
    signal.ask_now()
    wait_for(lambda: signal.problem is None)
    assert "answers again" in " ".join(signal.news())


def test_goes_on_in_a_thread_if_the_process_dies(grid, build):
    signal = build("charts")
    signal.start()
    asked = grid.count("charts")
    child_of(signal).kill()
    wait_for(lambda: signal._asker is None)
    grid.faults = {None: "500"}
    signal.refresh(force=True)
    assert signal._thread.is_alive()
    assert grid.count("charts") > asked
    assert signal.intensity(now()) is not None


def test_and_where_none_can_be_started(grid, build, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert poller.start_poller(build("em")) is None
    signal = build("em")
    signal.start()
    assert signal._asker is None
    assert signal.intensity(now()).value == pytest.approx(solar_day(grid.now))


PARENT = """
    import sys, time
    from lightning_green.grid.providers.energy_charts import EnergyChartsSignal
    signal = EnergyChartsSignal("DE", url=sys.argv[1])
    signal.start()
    print(signal._asker._process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("how", [signals.SIGKILL, signals.SIGTERM])
def test_does_not_outlive_a_training_that_is_killed(grid, how):
    command = [sys.executable, "-c", textwrap.dedent(PARENT), grid.url("charts")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert os.path.exists(f"/proc/{pid}")
    parent.send_signal(how)
    parent.wait(timeout=30)

    def gone():
        try:
            return "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_for(gone)
    parent.stdout.close()


def test_may_be_closed_and_started_again_at_once(grid, build):
    signal = build("charts")
    for _ in range(3):
        signal.start()
        assert signal.intensity(now()) is not None
        first = child_of(signal)
        signal.close()
        signal.close()
        first.wait(timeout=10)
    signal.start()
    wait_for(lambda: sum("lightning-green energy-charts" in t.name for t in threading.enumerate()) == 1)
    assert child_of(signal).poll() is None


def test_a_chain_starts_its_sources_side_by_side(grid, build):
    grid.faults = {"em": "silent"}
    chain = ChainSignal(build("em"), fallback=[build("charts"), ConstantSignal(381.0)])
    chain.start()
    assert chain.intensity(now()).source == "energy-charts"
    assert "changes from electricity-maps to energy-charts" in " ".join(chain.news())
    chain.close()


def test_a_snapshot_is_the_same_on_the_other_side():
    past = [
        Point(NOW - HOUR * back, 300.0 + back, "estimated" if back % 2 else "measured") for back in range(50, 0, -1)
    ]
    ahead = [Point(NOW + HOUR * on, 200.0 + on, "forecast") for on in range(40)]
    answer = Answer(tuple(past), tuple(ahead), issued_at=NOW - HOUR)
    first = Snapshot(HOUR).merged([(answer, NOW)], NOW)
    for made in (first, Snapshot(HOUR)):
        copy = Snapshot.unpack(made.pack())
        assert (copy.step, copy.past, copy.ahead, copy.issue) == (made.step, made.past, made.ahead, made.issue)
        for at in (NOW - HOUR * 10, NOW, NOW + HOUR * 3, NOW + HOUR * 60):
            assert copy.find(at, HOUR * 4) == made.find(at, HOUR * 4)
        one, other = (s.forecast(NOW, HOUR * 24, HOUR * 4, "average/lifecycle") for s in (made, copy))
        if one is not None:
            assert np.array_equal(one.values, other.values)
            assert np.array_equal(one.history_values, other.history_values)
            assert copy.merged([], NOW).past == made.past
