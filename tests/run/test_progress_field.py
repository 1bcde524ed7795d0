"""The field of the progress bar: its text, and when it is computed."""

import threading
from datetime import timedelta

import pytest

from lightning_green.energy.constant import ConstantPowerMeter
from lightning_green.grid.providers.constant import ConstantSignal
from lightning_green.ledger.account import Account
from lightning_green.planning import Level
from lightning_green.planning.plans import Plan, Slot
from lightning_green.run import progress_field
from lightning_green.run.progress_field import ProgressField, describe_progress
from lightning_green.run.recorder import MemoryLog, Recorder
from tests.callbacks.green_kit import START, clock

FULL = Level(1, 1)


@pytest.fixture
def make():
    """Return a function that returns the recorder of two hours at 300 W with a grid."""

    def make(grid=None, watts=300.0):
        time = clock()
        meter = ConstantPowerMeter(watts)
        meter.bind_clock(time.monotonic)
        meter.start()
        recorder = Recorder(time, MemoryLog(time, 1), meter, grid, 1.0, Account(), 0, 0)
        time.sleep(7200.0)
        return recorder

    return make


def plan(*actions):
    """Return a plan with one slot per three hours from (action, level)."""
    made = tuple(
        Slot(START + timedelta(hours=3 * n), START + timedelta(hours=3 * n + 3), *a) for n, a in enumerate(actions)
    )
    return Plan(made, 1.0, 1.0, 0.0, None, made[-1].end, "")


def test_text_has_state_intensity_emissions_and_the_next_change(make):
    recorder = make(ConstantSignal(212.4))
    assert describe_progress(recorder, None) == "running 212 g/kWh, 127 g"
    assert describe_progress(recorder, plan(("run", FULL), ("exit", None))) == (
        "running 212 g/kWh, 127 g, exit 03:00 UTC"
    )
    assert describe_progress(recorder, plan(("run", FULL), ("run", FULL))) == "running 212 g/kWh, 127 g"
    recorder.status.state = "held"
    held = describe_progress(recorder, plan(*[("hold", None)] * 8, ("run", FULL)))
    assert held == "held 212 g/kWh, 127 g, run 03 May 00:00 UTC"


def test_change_that_is_due_is_not_announced(make):
    recorder = make(ConstantSignal(212.4))
    recorder.clock.sleep(7200.0)
    assert describe_progress(recorder, plan(("run", FULL), ("exit", None))).count(",") == 1


def test_values_of_a_marginal_signal_are_labeled(make):
    recorder = make(ConstantSignal(212.4, kind="marginal/direct"))
    assert describe_progress(recorder, None) == "running 212 g/kWh marginal, 127 g marginal"


def test_without_a_grid_the_energy_is_shown(make):
    assert describe_progress(make(), None) == "running, 600 Wh"


def test_text_is_computed_once_a_second_and_when_the_state_changes(make, monkeypatch):
    now, asked = [0.0], []
    monkeypatch.setattr(progress_field.time, "monotonic", lambda: now[0])
    recorder = make(ConstantSignal(100.0))
    field = ProgressField(recorder, lambda: asked.append(1))
    for _ in range(3):
        assert field.text() == "running 100 g/kWh, 60 g"
    assert len(asked) == 1
    recorder.status.state = "held"
    assert field.text() == "held 100 g/kWh, 60 g"
    assert len(asked) == 2
    now[0] = 1.5
    field.text()
    assert len(asked) == 3


def test_text_does_not_wait_for_a_thread_that_writes_an_event(make):
    recorder = make(ConstantSignal(100.0))
    field = ProgressField(recorder, lambda: None)
    locked, release = threading.Event(), threading.Event()

    def write():
        with recorder.lock:
            locked.set()
            release.wait(60)

    thread = threading.Thread(target=write)
    thread.start()
    locked.wait(60)
    try:
        assert field.text() == ""
    finally:
        release.set()
        thread.join()
    assert field.text() == "running 100 g/kWh, 60 g"
