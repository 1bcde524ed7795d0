"""Waiting until an exited training resumes. The tests of the supervisor replan with a real child process."""

import threading

import pytest

from lightning_green.grid import TraceSignal
from lightning_green.grid.recorded import spec_for_record
from lightning_green.ledger.ledger import Ledger
from lightning_green.supervisor.waiting import Waiting
from lightning_green.utilities.clock import SimulatedClock
from tests.helpers.ledgers import make_event, read_records
from tests.helpers.traces import START, write_trace


@pytest.fixture
def wait(tmp_path):
    """Return a function that waits for fits that are paused until these hours; it returns the hour and the messages.

    A fit can be ``(hour, trace)``. It then has a job with a deadline and is planned again with this grid.
    """

    def run(*fits, wake=None, beat=lambda: None, **more):
        paused, messages = {}, []
        for number, fit in enumerate(fits):
            hour, trace = fit if isinstance(fit, tuple) else (fit, None)
            until = START.replace(hour=hour).isoformat()
            job = {"work_hours": 2.0, "deadline": START.replace(hour=20).isoformat(), "hold_power": 0.3}
            job |= {"resume_cost": 0.1, "pauses": ["exit"], "min_saving": 0.0}
            job |= more
            state = {"until": until, "reason": f"fit {number} is paused", "attempt": 1, "fit": number}
            if more:
                state["job"] = job
            if trace is not None:
                values = write_trace(tmp_path / f"{number}.csv", trace)
                state["job"] = job
                state["grid"] = spec_for_record(TraceSignal(values))
            paused[tmp_path, number] = make_event("paused", **state)
        clock = SimulatedClock(START)
        clock.bind(tmp_path)
        Waiting(paused, messages.append).wait(clock, wake or threading.Event(), beat)
        return (clock.now() - START).total_seconds() / 3600.0, "\n".join(messages)

    return run


def test_wait_ends_when_the_first_fit_is_due(wait, tmp_path):
    hours, output = wait(9, 4, 7)
    assert hours == 4.0
    assert output == "Exited until 2024-05-02 04:00 UTC: fit 1 is paused (3 trainings are paused)"
    assert read_records(tmp_path) == []


def test_earlier_clean_hour_shortens_the_wait(wait, tmp_path):
    hours, output = wait((10, [600] * 6 + [50] * 4 + [600] * 20))
    assert hours == 6.0
    assert "New plan: exited until 2024-05-02 06:00 UTC" in output
    assert [record["action"] for record in read_records(tmp_path) if record["event"] == "decision"] == ["exit"]


def test_later_clean_hour_does_not_delay_another_fit(wait):
    hours, output = wait((5, [600] * 12 + [50] * 4 + [600] * 20), 8)
    assert "New plan: exited until 2024-05-02 12:00 UTC" in output
    assert hours == 8.0


def test_wake_ends_the_wait_and_heartbeats_continue_until_then(wait):
    wake, beats = threading.Event(), []

    def beat():
        beats.append(1)
        if len(beats) == 3:
            wake.set()

    hours, _ = wait(9, wake=wake, beat=beat)
    assert (hours, len(beats)) == (3.0, 3)


def test_ledger_is_closed_after_the_wait(wait, tmp_path):
    wait((10, [50] * 30))
    ledger = Ledger(tmp_path, SimulatedClock(START), 2)
    ledger.append(make_event("started"))
    ledger.close()
    assert read_records(tmp_path)[-1]["attempt"] == 2


def test_command_starts_early_by_the_time_to_return(wait):
    hours, output = wait(4, return_time=0.5)
    assert hours == 3.5
    assert output == "Exited until 2024-05-02 04:00 UTC: fit 0 is paused The command starts at 03:30 UTC."


def test_new_plan_keeps_the_time_to_return(wait, tmp_path):
    hours, output = wait((10, [600] * 6 + [50] * 4 + [600] * 20), return_time=0.5)
    assert hours == 5.5
    assert "New plan: exited until 2024-05-02 06:00 UTC" in output
    assert [record["action"] for record in read_records(tmp_path) if record["event"] == "decision"] == ["exit"]


def test_clean_hour_now_starts_the_command_at_once(wait, tmp_path):
    hours, _ = wait((10, [50] * 30), return_time=0.5)
    assert hours == 1.0, "planned again at the end of the first hour"
    assert [record["action"] for record in read_records(tmp_path) if record["event"] == "decision"] == ["run"]


@pytest.mark.parametrize("damaged", ["soon", -1.0, float("nan"), 1e9])
def test_damaged_return_time_is_ignored(wait, damaged):
    assert wait(4, return_time=damaged)[0] == 4.0
