import math

import pytest

from lightning_green.check.job import Stop
from lightning_green.check.stops import choose_stops


def started(epochs=3, batches=6):
    return {"epochs": epochs, "batches": batches}


def test_first_fit_is_stopped_within_and_between_epochs_and_killed():
    assert choose_stops({0: started()}, [], epochs_only=False) == (
        Stop(0, 0, 3),
        Stop(0, 1, 0),
        Stop(0, 1, 1),
        Stop(0, 1, 4, kill=True),
    )


def test_scheduled_changes_are_stopped_at_before_and_after():
    stops = choose_stops({0: started(epochs=7)}, [5], epochs_only=False)
    assert {Stop(0, 5, 0), Stop(0, 5, 1)} <= set(stops)


def test_between_epochs_only():
    stops = choose_stops({0: started()}, [], epochs_only=True)
    assert stops == (Stop(0, 1, 0), Stop(0, 2, 0, kill=True))
    assert choose_stops({0: started(epochs=1)}, [], epochs_only=True) == ()


def test_further_fits_have_one_stop_each():
    stops = choose_stops({n: started() for n in range(5)}, [], epochs_only=False)
    assert [stop for stop in stops if stop.fit] == [Stop(1, 0, 3), Stop(2, 0, 3)]


@pytest.mark.parametrize("batches", [1, 2, 3, 6, math.inf])
@pytest.mark.parametrize("epochs", [1, 2, 3, None])
def test_stops_lie_within_the_training_in_order(epochs, batches):
    stops = choose_stops({0: started(epochs, batches)}, [1, 9], epochs_only=False)
    assert list(stops) == sorted(set(stops))
    assert all(0 <= stop.epoch < (epochs or 1) and stop.batch < batches and stop.epoch + stop.batch for stop in stops)
