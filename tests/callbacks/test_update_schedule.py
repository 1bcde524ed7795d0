import pytest

from lightning_green.callbacks._update_schedule import UpdateSchedule
from lightning_green.compression.schedules import Moment, Span


class FakeTrainer:
    """Ten epochs of ten optimizer steps."""

    num_training_batches, accumulate_grad_batches, estimated_stepping_batches = 10, 1, 100


def schedule(begin=0.2, end=0.6, every=None, updates=4):
    made = UpdateSchedule(Moment.parse("begin", begin), Moment.parse("end", end), every, None, updates)
    made.start(FakeTrainer())
    return made


def test_default_interval_divides_the_span():
    assert schedule().span == Span(20, 60, 10)
    assert schedule(every=7).span == Span(20, 60, 7)


def test_end_is_before_the_last_step():
    assert schedule(end=1.0).span.end == 99
    assert schedule(begin=1.0, end=1.0).span.begin == 99


def test_missed_update_stays_due_until_it_is_made():
    made = schedule()
    assert [made.is_due(step) for step in (19, 20, 25)] == [False, True, True]
    made.last_step = 25
    assert [made.is_due(step) for step in (29, 30, 99)] == [False, True, True]
    assert made.progress(40) == 0.5


def test_progress_never_falls_when_a_training_gets_more_epochs():
    made = schedule()
    made.note_update(60)
    longer = UpdateSchedule(Moment.parse("begin", 0.2), Moment.parse("end", 0.6), None, 300, 4)
    longer.load_state_dict(made.state_dict())
    longer.start(FakeTrainer())
    assert longer.span == Span(60, 180, 30)
    assert longer.progress(90) == 1.0
    longer.reset()
    assert longer.progress(90) == 0.25


def test_end_before_begin_raises():
    with pytest.raises(ValueError, match="`end` should not come before `begin`: they are steps 20 and 50 of 100"):
        schedule(begin="5ep", end=0.2)
