"""A training that stops when an improvement costs too much energy: 300 W, 180 kJ a batch, 2.16 MJ an epoch."""

import pytest

from lightning_green import EnergyBudget, EnergyEarlyStopping, ExactResume
from lightning_green.run.coordinator import close_current_run
from tests.callbacks.green_kit import Net, clock, events, train

EPOCH = 2.16e6  # J


class Learner(Net):
    """Logs one of the given values after each epoch."""

    values = (0.2, 0.5, 0.6, 0.605, 0.61, 0.612, 0.612, 0.612, 0.612)

    def validation_step(self, batch, batch_idx):
        self.log("accuracy", self.values[self.trainer.current_epoch])


@pytest.fixture(autouse=True)
def learner(monkeypatch):
    monkeypatch.setattr("tests.callbacks.green_kit.Net", Learner)
    return monkeypatch


def stopping(joules, **given):
    return EnergyEarlyStopping("accuracy", joules, **{"meter": 300.0, "clock": clock(), **given})


def epochs(folder, *callbacks):
    return train(folder, *callbacks, validate=True, max_epochs=9)[0].global_step / 12


@pytest.mark.parametrize(
    ("joules", "expected"),
    [
        (EPOCH / 31, 2),  # the second epoch has gained 30 points
        (EPOCH / 29, 3),  # the third one 10
        (EPOCH * 0.9, 4),  # the fourth half a point
        (EPOCH * 1.9, 5),  # the fourth and fifth a point
        (EPOCH * 2.1, 8),  # and then three epochs less than one
        (EPOCH * 9, 9),
    ],
)
def test_training_stops_when_a_point_costs_more_than_the_limit(tmp_path, joules, expected, caplog):
    caplog.set_level("INFO")
    assert epochs(tmp_path, stopping(joules)) == expected
    (finished,) = events(tmp_path, "finished")
    assert ("J a point" in finished["reason"]) == (expected < 9)
    assert caplog.text.count("The training stops.") == (expected < 9)


def test_smaller_metric_and_other_points(tmp_path, learner):
    learner.setattr(Learner, "values", (5.0, 4.0, 3.0, 2.5, 2.4, 2.3, 2.2, 2.1, 2.0))
    assert epochs(tmp_path, stopping(EPOCH * 1.5, point=1.0, mode="min")) == 5


def test_value_that_is_not_finite_is_skipped(tmp_path, learner):
    learner.setattr(Learner, "values", (0.2, float("nan"), 0.6, 0.7, 0.8, 0.9, 0.92, 0.94, 0.96))
    assert epochs(tmp_path, stopping(EPOCH * 1.1)) == 9


def test_missing_metric_is_an_error_that_names_it(tmp_path):
    with pytest.raises(RuntimeError, match="`monitor` should be a metric that the validation logs, got 'score'"):
        epochs(tmp_path, EnergyEarlyStopping("score", 1.0, meter=300.0, clock=clock()))


def test_paused_training_stops_where_the_uninterrupted_one_does(tmp_path):
    joules = EPOCH * 2.1
    whole = train(tmp_path / "whole", stopping(joules), ExactResume(), validate=True, max_epochs=9)
    close_current_run()
    folder = tmp_path / "paused"
    for limit in (0.3, 1.1, 2.9):
        with pytest.raises(SystemExit):
            epochs(folder, stopping(joules, clock=None, meter="auto"), pausing(limit))
        close_current_run()
    stop = stopping(joules, clock=None, meter="auto")
    trainer, weights = train(folder, stop, pausing(99.0), validate=True, max_epochs=9)
    assert (trainer.global_step, weights) == (whole[0].global_step, whole[1])
    assert trainer.global_step == 96
    assert stop.joules == pytest.approx(whole[0].callbacks[0].joules, rel=1e-6)
    assert len(events(folder, "paused")) == 3


def pausing(kwh):
    return EnergyBudget(kwh, on_exceeded="pause", meter=300.0, clock=clock(), check_every="10m")


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"max_joules_per_point": 0.0}, ValueError, "`max_joules_per_point` should be a number above 0"),
        ({"point": 0.0}, ValueError, "`point`"),
        ({"mode": "up"}, ValueError, "`mode`"),
        ({"monitor": ""}, TypeError, "`monitor`"),
    ],
)
def test_wrong_arguments_raise(given, error, match):
    with pytest.raises(error, match=match):
        EnergyEarlyStopping(**{"monitor": "accuracy", "max_joules_per_point": 1.0, **given})
