"""When requests are sent, and by which process."""

import os
import subprocess
import sys
import textwrap
import threading
from datetime import timedelta

import pytest

from tests.helpers.live_signals import FAST, NOW, PROVIDERS

MINUTE = timedelta(minutes=1)


def test_long_retry_after_delays_the_next_request(grid, build):
    grid.faults = {None: "429_retry_after"}
    signal = build("em")
    signal.refresh(NOW)
    assert len(grid.requests) == 3, "one request each for the value, the history and the forecast"
    grid.faults = {}
    signal.refresh(NOW + timedelta(seconds=119))
    assert len(grid.requests) == 3
    signal.refresh(NOW + timedelta(seconds=121))
    assert len(grid.requests) == 6
    assert signal.problem is None


def test_circuit_breaker_reduces_requests_to_a_failing_source(grid, build):
    grid.faults = {None: "500"}
    signal = build("charts")
    for minute in range(180):
        signal.refresh(NOW + minute * MINUTE)
    rounds = grid.count("charts") / 2 / FAST.attempts  # two addresses with this number of attempts each
    assert rounds <= 10, "after 1, 2, 4, ... and then every 30 minutes"
    assert len(signal.pop_messages()) == 1, "the same failure was reported twice"
    grid.faults = {}
    signal.refresh(NOW + 211 * MINUTE)
    assert signal.problem is None
    assert any("answers again" in message for message in signal.pop_messages())


@pytest.mark.slow
def test_requests_are_no_more_frequent_than_the_data_changes(grid, build):
    signals = {name: build(name) for name in PROVIDERS}
    for minute in range(180):
        grid.now = NOW + minute * MINUTE
        for signal in signals.values():
            signal.refresh(grid.now)
    most = {"em": 3 * 4, "neso": 2 * 7, "charts": 13 + 2, "eds": 37 + 4, "sdk": 2 * 4, "json": 4, "prometheus": 37 + 4}
    for name, count in most.items():
        assert grid.count(name) <= count, name
    assert grid.count("watttime", "forecast") <= 37
    assert grid.count("watttime", "/login") == 1, "the token was not kept"


def test_second_request_is_conditional(grid, build):
    signal = build("em")
    signal.refresh(NOW)
    signal.refresh(NOW, force=True)
    latest = [headers for _, path, _, headers in grid.requests if path.endswith("/latest")]
    assert "if-none-match" not in latest[0]
    assert latest[1]["if-none-match"] == f'"{NOW.timestamp():.0f}"'
    assert signal.intensity(NOW) is not None


CHILD = """
    import sys
    from datetime import datetime
    from lightning_green.grid.providers.electricity_maps import ElectricityMapsSignal
    signal = ElectricityMapsSignal("DE", url=sys.argv[1])
    now = datetime.fromisoformat(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    signal.refresh(now)
    print(signal.intensity(now).value, flush=True)
"""


def test_processes_share_one_request_and_a_restart_loads_the_cache(grid, build):
    grid.faults = {None: "slow"}  # so slow that all processes need an answer while the first one waits
    command = [sys.executable, "-c", textwrap.dedent(CHILD), grid.url("em"), NOW.isoformat()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes, env=dict(os.environ)) for _ in range(3)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    values = {float(child.communicate(timeout=60)[0]) for child in children}
    assert len(values) == 1
    assert sorted(path.rsplit("/", 1)[1] for _, path, _, _ in grid.requests) == ["forecast", "history", "latest"]

    signal = build("em")
    signal.load_cache(NOW + MINUTE)
    assert signal.intensity(NOW + MINUTE).value in values
    assert len(grid.requests) == 3


def test_threads_share_one_request(grid, build):
    signals = [build("charts") for _ in range(4)]
    threads = [threading.Thread(target=signal.refresh, args=(NOW,)) for signal in signals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert grid.count("charts") == 2
    assert {signal.intensity(NOW).value for signal in signals} == {signals[0].intensity(NOW).value}
