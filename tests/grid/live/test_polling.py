"""The polling thread."""

import gc
import multiprocessing
import random
import subprocess
import sys
import textwrap
import threading
import time
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import lightning_green.grid.providers.energy_charts as energy_charts
from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.live import fetcher
from lightning_green.grid.live import signal as live_signal
from lightning_green.grid.live.polling import Poller
from lightning_green.grid.providers.constant import ConstantSignal
from lightning_green.utilities.http.transport import Limits, Transport
from tests.helpers.fake_grid import FakeGrid, solar_day
from tests.helpers.live_signals import NOW, PROVIDERS


def now():
    return datetime.now(timezone.utc)


@pytest.fixture
def grid(service_environment):
    """Fake services at the present time."""
    with FakeGrid(now()) as server:
        yield server


@pytest.fixture
def often(monkeypatch):
    """Poll without a wait, so that a test observes many rounds."""
    monkeypatch.setattr(live_signal, "SHORTEST_WAIT", 0.01)
    monkeypatch.setattr(live_signal, "LONGEST_WAIT", 0.02)


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.02)


def threads_of(signal):
    return [thread for thread in threading.enumerate() if thread.name == f"lightning-green {signal.source}"]


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_is_polled(grid, build, name):
    signal = build(name)
    signal.start()
    wait_for(lambda: signal.intensity(now()) is not None)
    assert signal.intensity(now()).value == pytest.approx(solar_day(grid.now))
    assert signal.problem is None
    assert len(threads_of(signal)) == 1
    assert threads_of(signal)[0].daemon
    signal.close()
    assert threads_of(signal) == []


def test_failures_and_recoveries_are_reported_once(grid, build, often):
    time_of_signal = [now()]
    signal = build("charts")
    signal.bind_clock(lambda: time_of_signal[0])
    signal.start()
    first = signal.intensity(time_of_signal[0]).value
    assert first == pytest.approx(solar_day(grid.now))
    grid.faults = {None: "502_html"}
    time_of_signal[0] += timedelta(hours=1)
    wait_for(lambda: signal.problem is not None)
    time.sleep(0.1)  # some more rounds
    messages = signal.pop_messages()
    assert "reports a server error (502); the last forecast is used" in " ".join(messages)
    assert len(messages) == 1
    assert signal.pop_messages() == []
    grid.faults = {}
    grid.now = time_of_signal[0] = time_of_signal[0] + timedelta(hours=1)
    wait_for(lambda: signal.problem is None)
    assert "answers again" in " ".join(signal.pop_messages())
    assert signal.intensity(time_of_signal[0]).value == pytest.approx(solar_day(grid.now))


def test_thread_survives_an_exception_in_a_parser(grid, build, often, monkeypatch):
    signal = build("charts")
    signal.bind_clock(lambda: NOW)
    called = threading.Event()

    def broken(body):
        called.set()
        raise KeyError("a bug")

    monkeypatch.setattr(energy_charts, "parse_co2eq", broken)
    signal.start()
    assert called.is_set()
    assert signal.intensity(NOW) is None
    assert "unexpected KeyError" in " ".join(signal.pop_messages())
    assert signal.problem == "an unexpected KeyError"
    assert signal.poller.is_running


def test_thread_recovers_after_an_exception():
    class Target:
        def __init__(self):
            self.calls, self.reported = 0, []

        def clock(self):
            return now()

        def load_cache(self, now):
            raise ValueError("a bug")

        def refresh(self, now):
            self.calls += 1
            if self.calls % 2:
                raise MemoryError
            return []

        def seconds_to_next_fetch(self, now):
            return 0.001

        def report(self, error):
            self.reported.append(type(error))
            raise RuntimeError("a bug in the report")

    target = Target()
    poller = Poller(target, "target", target.report)
    poller.start()
    assert poller.wait_for_first_answer(10.0)
    assert target.reported == [ValueError, MemoryError]
    assert poller.is_running
    poller.stop()
    assert not poller.is_running


def test_start_after_close_polls_again(grid, build):
    signal = build("charts")
    for _ in range(3):
        signal.start()
        assert signal.intensity(now()) is not None
        assert len(threads_of(signal)) == 1
        signal.close()
        signal.close()
        assert not signal.poller.is_running
    signal.start()
    signal.start()
    wait_for(lambda: len(threads_of(signal)) == 1)
    assert signal.poller.is_running


def test_start_works_while_the_thread_of_an_earlier_start_waits_for_an_answer(grid, build):
    grid.faults = {None: "silent"}
    signal = build("charts")
    signal.fetcher.limits = Limits(read=60.0, total=60.0, attempts=1)
    signal.poller.start()
    wait_for(lambda: grid.requests)
    earlier = signal.poller._thread
    signal.close()
    grid.faults = {}
    signal.start()
    assert signal.poller._thread is not earlier
    assert signal.poller.is_running
    wait_for(lambda: not earlier.is_alive())
    signal.refresh(force=True)
    assert signal.intensity(now()).value == pytest.approx(solar_day(grid.now))


@pytest.mark.parametrize("name", ["charts", "watttime"])
def test_close_ends_the_round_of_requests(grid, build, monkeypatch, name):
    made = []

    def new_transport(limits):
        made.append(Transport(limits))
        return made[-1]

    monkeypatch.setattr(fetcher, "Transport", new_transport)
    grid.faults = {None: "500"}
    signal = build(name)
    signal.fetcher.limits = Limits(attempts=50, wait=60.0)  # the first query is tried again for minutes
    signal.poller.start()
    wait_for(lambda: grid.requests)
    thread = signal.poller._thread
    signal.close()
    wait_for(lambda: not thread.is_alive())
    sent = {(path, *query.items()) for _, path, query, _ in grid.requests if path != "/login"}
    assert len(sent) <= 1, "requests of the round were sent after the close"
    assert [transport._client for transport in made] == [None] * len(made)
    assert signal.pop_messages() == []
    assert signal.problem is None

    grid.faults = {}
    later = build(name)
    later.refresh(now())
    assert later.intensity(now()) is not None, "the canceled request was cached as a failure of the service"


def test_chain_starts_its_sources_in_parallel(grid, build):
    grid.faults = {"em": "silent"}
    chain = ChainSignal(build("em"), fallback=[build("charts"), ConstantSignal(381.0)])
    chain.start()
    assert chain.intensity(now()).source == "energy-charts"
    assert "changes from electricity-maps to energy-charts" in " ".join(chain.pop_messages())
    chain.close()


SCRIPT = """
    import sys, threading
    from lightning_green.grid.providers.energy_charts import EnergyChartsSignal
    signal = EnergyChartsSignal("DE", url=sys.argv[1])
    signal.start()
    assert any(thread.name == "lightning-green energy-charts" for thread in threading.enumerate())
    print(signal.intensity(signal.clock()).value)
"""


@pytest.mark.parametrize("fault", [None, "slow_drip"])
def test_thread_does_not_keep_the_interpreter_alive(grid, fault):
    grid.faults = {None: fault}
    code = textwrap.dedent(SCRIPT)
    if fault is not None:
        code = code.replace("signal.start()", "signal.poller.start()").replace("print(signal", "0 and print(signal")
    command = [sys.executable, "-c", code, grid.url("charts")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    if fault is None:
        assert float(done.stdout) == pytest.approx(solar_day(grid.now))


class SignalDataset(Dataset):
    """Reads the signal in every sample."""

    def __init__(self, signal):
        self.signal = signal

    def __len__(self):
        return 8

    def __getitem__(self, index):
        running = [thread.name for thread in threading.enumerate()]
        return self.signal.intensity(now()).value, len(running), float(self.signal.poller.is_running)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_forked_workers_read_the_signal_and_do_not_poll(grid, build):
    signal = build("charts")
    signal.start()
    signal._refresh_lock.acquire()  # as if the thread were in a request at the time of the fork
    sent = len(grid.requests)
    loader = DataLoader(SignalDataset(signal), batch_size=4, num_workers=2, multiprocessing_context="fork")
    batches = list(loader)
    signal._refresh_lock.release()
    assert len(batches) == 2
    for values, _, is_running in batches:
        assert values.tolist() == pytest.approx([solar_day(grid.now)] * 4)
        assert is_running.tolist() == [0.0] * 4
    assert len(grid.requests) == sent
    assert signal.poller.is_running


def test_polling_does_not_use_the_global_random_generators(grid, build, often):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    for name in PROVIDERS:
        for fault in (None, "500", "reset"):
            grid.faults = {None: fault}
            signal = build(name)
            signal.refresh(force=True)
            signal.start()
            signal.close()
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states


def test_closed_signals_leave_no_thread(grid, build):
    before = threading.active_count()
    for name in PROVIDERS:
        signal = build(name)
        signal.start()
        signal.close()
    gc.collect()
    wait_for(lambda: threading.active_count() <= before + 1)  # the server may still have one
