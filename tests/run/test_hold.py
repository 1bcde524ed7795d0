"""A pause in process, on a simulated clock."""

import signal
from datetime import timedelta

import pytest

from lightning_green.planning import Level, Plan
from lightning_green.planning.plans import Slot
from lightning_green.run.hold import Hold
from lightning_green.strategies.control_group import Command
from tests.helpers.ledgers import read_records
from tests.helpers.open_fits import open_fit
from tests.helpers.scripted_ranks import ScriptedRanks
from tests.helpers.sessions import START

HOUR = timedelta(hours=1)


def plan(at, *actions):
    """Return a plan with an hour for each action."""
    levels = {"run": Level(1.0, 1.0)}
    slots = [Slot(at + n * HOUR, at + (n + 1) * HOUR, action, levels.get(action)) for n, action in enumerate(actions)]
    return Plan(tuple(slots), 1.0, 2.0, 0.5, None, slots[-1].end, "dirty now")


@pytest.fixture
def ranks():
    return ScriptedRanks(size=1)


@pytest.fixture
def fit(opened, tmp_path, ranks):
    session, _ = opened(grid=100.0)
    return open_fit(session, tmp_path, ranks)


def kwh(fit):
    return fit.session.metrics()["energy/kwh"]


def test_hold_lasts_until_a_plan_begins_with_another_action(fit, tmp_path):
    plans = [plan(START + HOUR, "hold", "run"), plan(START + 2 * HOUR, "run")]
    expected = plans[-1]
    latest = Hold(fit, 0.2, lambda: plans.pop(0)).run(plan(START, "hold", "hold", "run"))
    assert latest is expected
    assert plans == []
    assert fit.session.clock.now() == START + 2 * HOUR
    assert kwh(fit) == pytest.approx(0.2 * 0.3 * 2)
    states = [record for record in read_records(tmp_path / "run") if record["event"] == "state"]
    assert [(one["state"], one["phase"], one["reason"]) for one in states] == [("held", "held", "dirty now")]
    assert states[0]["until"] == (START + 2 * HOUR).isoformat()


def test_hold_ends_if_nothing_can_be_decided(fit):
    assert Hold(fit, 0.2, lambda: None).run(plan(START, "hold", "run")) is None
    assert fit.session.clock.now() == START + HOUR


def test_signal_ends_the_hold_at_once(fit):
    fit.ending.signals.set(signal.SIGTERM)
    planned = plan(START, "hold", "run")
    assert Hold(fit, 0.2, lambda: None).run(planned) is planned
    assert fit.session.clock.now() == START


def test_training_resumes_at_full_power(fit, ranks):
    hold = Hold(fit, 0.2, lambda: None)
    hold.run(plan(START, "hold"))
    hold.end()
    held = kwh(fit)
    fit.session.clock.sleep(3600)
    assert kwh(fit) == pytest.approx(held + 0.3)
    assert (fit.session.recorder.status.state, fit.session.recorder.status.phase) == ("running", "training")


def test_other_ranks_are_kept_waiting_and_receive_power_and_duration(fit, ranks):
    hold = Hold(fit, 0.2, lambda: None)
    hold.run(plan(START, "hold"))
    hold.end()
    assert ranks.sent[0] == (Command.HOLD, 0.2)
    assert {command[0] for command in ranks.sent[1:-1]} == {Command.HEARTBEAT}
    command, seconds = ranks.sent[-1]
    assert command == Command.RESUME
    assert 0.0 <= seconds < 60.0  # of real time


def test_metrics_are_logged_during_the_hold(fit, monkeypatch):
    logged = []
    monkeypatch.setattr(
        "lightning_green.run.hold.loggers.log_to_all", lambda trainer, metrics, step: logged.append(metrics)
    )
    Hold(fit, 0.2, lambda: None).run(plan(START, "hold"))
    assert len(logged) >= 4
    assert {metrics["carbon/state"] for metrics in logged} == {2.0}
    hours = [metrics["carbon/elapsed_hours"] for metrics in logged]
    assert hours == sorted(set(hours))
