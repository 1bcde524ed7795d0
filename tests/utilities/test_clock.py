"""Time as a parameter."""

import copy
import os
import pickle
import threading
import time
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_green.utilities.clock import (
    CLOCK_VARIABLE,
    SimulatedClock,
    SystemClock,
    clock_from_environment,
    clock_from_spec,
    utc_iso,
)

START = "2024-05-01T00:00:00+00:00"


def test_simulated_clock_advances_by_work_and_skips_sleeps():
    clock = SimulatedClock(START, seconds_per_batch=60, seconds_per_checkpoint=5, seconds_per_restart=300)
    began = clock.time()
    for work, seconds in (("batch", 60), ("checkpoint", 65), ("restart", 365)):
        clock.advance(work)
        assert clock.time() - began == seconds
    real = time.monotonic()
    clock.sleep(86400)
    assert time.monotonic() - real < 60
    assert clock.time() - began == 365 + 86400
    assert clock.monotonic() - began == 365 + 86400
    clock.sleep(-5)
    assert clock.time() - began == 365 + 86400
    woken = threading.Event()
    woken.set()
    clock.sleep(3600, woken)
    assert clock.time() - began == 365 + 86400


def test_position_is_saved_in_the_directory(tmp_path):
    first = SimulatedClock(START, seconds_per_batch=60)
    first.bind(tmp_path)
    first.advance("batch")
    second = SimulatedClock(START, seconds_per_batch=60)
    second.bind(tmp_path)
    assert second.time() == first.time()
    second.sleep(3600)
    third = SimulatedClock(START)
    third.bind(tmp_path)
    assert third.now() == datetime(2024, 5, 1, 1, 1, tzinfo=timezone.utc)


def test_second_bind_closes_the_previous_file(tmp_path):
    clock = SimulatedClock(START)
    (tmp_path / "other").mkdir()
    clock.bind(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for folder in (tmp_path / "other", tmp_path, tmp_path / "other"):
        clock.bind(folder)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("content", [b"", b"\n", b"noon\n", b"0000", b"\xff\xfe", b"nan\n", b"inf\n"])
def test_damaged_position_does_not_stop_training(tmp_path, content, caplog):
    (tmp_path / "clock").write_bytes(content)
    clock = SimulatedClock(START, seconds_per_batch=60)
    clock.bind(tmp_path)
    assert clock.now() == datetime(2024, 5, 1, tzinfo=timezone.utc)
    assert bool(caplog.text) == bool(content.strip())


def test_system_clock():
    clock = SystemClock()
    assert abs(clock.time() - time.time()) < 5
    assert clock.now().tzinfo is timezone.utc
    before = clock.time()
    clock.advance("batch")
    clock.sleep(0.01)
    assert clock.time() >= before
    woken = threading.Event()
    woken.set()
    clock.sleep(600, woken)  # would time out


@given(
    st.floats(0, 1e6, allow_nan=False),
    st.floats(0, 1e5, allow_nan=False),
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(timezone.utc)),
)
def test_clock_is_passed_to_a_child_as_text(batch, restart, start):
    clock = SimulatedClock(start, seconds_per_batch=batch, seconds_per_restart=restart)
    again = clock_from_spec(clock.spec())
    assert again.time() == clock.time()
    assert again.spec() == clock.spec()
    clock.advance("batch")
    again.advance("batch")
    assert again.time() == clock.time()


def test_clock_is_read_from_the_environment(monkeypatch):
    assert clock_from_environment() is None
    monkeypatch.setenv(CLOCK_VARIABLE, "system")
    assert isinstance(clock_from_environment(), SystemClock)
    monkeypatch.setenv(CLOCK_VARIABLE, f"simulated:start={START},batch=7")
    clock = clock_from_environment()
    assert isinstance(clock, SimulatedClock)
    assert "batch=7" in clock.spec()


@pytest.mark.parametrize("name", ["seconds_per_batch", "seconds_per_checkpoint", "seconds_per_restart"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_invalid_seconds_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` should be 0 or more"):
        SimulatedClock(START, **{name: value})


def test_start_without_a_time_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        SimulatedClock("2024-05-01T00:00:00")


@pytest.mark.parametrize("text", ["", "noon", "system:x", "simulated", "simulated:batch=1", "simulated:start=x"])
def test_text_that_is_not_a_clock_is_refused(text):
    with pytest.raises(ValueError, match=r"should be|isoformat"):
        clock_from_spec(text)


def test_error_names_the_field_of_an_invalid_number():
    with pytest.raises(ValueError, match="`batch` should be a number of seconds, got 'x'"):
        clock_from_spec(f"simulated:start={START},batch=x")


@given(st.floats(0, 4e9))
def test_utc_iso_round_trip(seconds):
    assert abs(datetime.fromisoformat(utc_iso(seconds)).timestamp() - seconds) < 1e-5


def test_copy_is_independent(tmp_path):
    clock = SimulatedClock("2024-05-01T00:00:00Z", seconds_per_batch=60)
    clock.bind(tmp_path)
    clock.advance("batch")
    for copied in (copy.deepcopy(clock), pickle.loads(pickle.dumps(clock))):
        assert copied.now() == clock.now()
        copied.sleep(3600)
    assert clock.now().isoformat() == "2024-05-01T00:01:00+00:00"
    assert float((tmp_path / "clock").read_text()) == clock.time()


def test_look_does_not_write(tmp_path):
    """The run may be alive, and its clock must not go back to what was read a moment ago."""
    clock, other = SimulatedClock("2024-05-01T00:00:00Z"), SimulatedClock("2024-05-01T00:00:00Z")
    other.look(tmp_path)
    assert not (tmp_path / "clock").exists()
    clock.bind(tmp_path)
    clock.sleep(3600)
    other.look(tmp_path)
    assert other.now() == clock.now()
    other.sleep(3600)
    assert float((tmp_path / "clock").read_text()) == clock.time()


def test_file_of_the_position_is_closed_with_the_clock(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        clock = SimulatedClock(START)
        clock.bind(tmp_path)
        clock.bind(tmp_path)
        copy.deepcopy(clock)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del clock
    assert len(os.listdir("/proc/self/fd")) == before
