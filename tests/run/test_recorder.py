"""Events of a recorder: energy, intensity, state and totals at each of them."""

from datetime import datetime, timezone

import pytest

from lightning_green.energy.constant import ConstantPowerMeter
from lightning_green.grid.providers.constant import ConstantSignal
from lightning_green.ledger.account import Account
from lightning_green.ledger.events import PhaseChanged, Sample, StateChanged, Warned
from lightning_green.run.recorder import MemoryLog, Recorder
from lightning_green.utilities.clock import SimulatedClock

START = datetime(2024, 5, 1, tzinfo=timezone.utc)
WATTS, GRAMS = 400.0, 250.0


@pytest.fixture
def recorder():
    clock, meter = SimulatedClock(START), ConstantPowerMeter(WATTS)
    meter.bind_clock(clock.monotonic)
    meter.start()
    return Recorder(clock, MemoryLog(clock, 3), meter, ConstantSignal(GRAMS, zone="DE"), 1.5, Account(), 0, 2)


def test_event_has_header_state_energy_and_intensity(recorder):
    recorder.read_step = lambda: 7
    recorder.data_wait_seconds = 2.5
    recorder.clock.sleep(3600)
    event = recorder.record(Warned(reason="why"))
    assert (event.seq, event.attempt, event.fit, event.global_step, event.reason) == (1, 3, 2, 7, "why")
    assert event.time == datetime(2024, 5, 1, 1, tzinfo=timezone.utc)
    assert (event.state, event.phase) == ("running", "startup")
    measured = event.measured
    assert measured.total_joules == pytest.approx(WATTS * 3600)
    assert (measured.intensity.value, measured.intensity.zone, measured.pue) == (GRAMS, "DE", 1.5)
    assert measured.data_wait_s == 2.5


def test_energy_belongs_to_the_state_before_the_event(recorder):
    recorder.record(Sample())
    recorder.clock.sleep(3600)
    changed = recorder.enter("held", "held", "carbon-intensive")
    assert changed is None
    recorder.clock.sleep(1800)
    recorder.enter(phase="restart")
    states = recorder.totals.joules_by_state
    assert states["running"] == pytest.approx(WATTS * 3600)
    assert states["held"] == pytest.approx(WATTS * 1800)


def test_change_of_state_and_change_of_phase_are_different_events(recorder, monkeypatch):
    written = []
    monkeypatch.setattr(recorder.account, "add", written.append)
    recorder.enter(phase="validation")
    recorder.enter("held", "held", until=START)
    recorder.enter("held", "held")
    assert [type(event) for event in written] == [PhaseChanged, StateChanged, PhaseChanged]
    assert written[1].until == START


def test_another_throttle_level_in_the_same_state_is_recorded(recorder, monkeypatch):
    written = []
    monkeypatch.setattr(recorder.account, "add", written.append)
    recorder.enter("throttled", reason="first", level="0.8:0.95")
    recorder.enter("throttled", reason="second", level="0.6:0.85")
    assert [(type(event), event.level) for event in written] == [(StateChanged, "0.8:0.95"), (StateChanged, "0.6:0.85")]


def test_level_divides_the_energy_between_two_segments(recorder):
    recorder.status.phase = "training"
    recorder.record(Sample())
    recorder.clock.sleep(3600)
    recorder.set_level(0.5, 0.8)
    recorder.enter("throttled")
    recorder.clock.sleep(3600)
    recorder.record(Sample())
    first, second = recorder.totals.segments[-2:]
    assert (first.power, first.speed) == (1.0, 1.0)
    assert (second.power, second.speed) == (0.5, 0.8)
    assert second.joules == pytest.approx(0.5 * first.joules)  # a constant meter follows the load


def test_since_last_is_the_energy_after_the_last_event(recorder):
    recorder.clock.sleep(60)
    recorder.record(Sample())
    recorder.clock.sleep(30)
    assert recorder.since_last() == pytest.approx(WATTS * 30)
