"""What happens between two batches, on rank 0 and on other ranks."""

import signal
from datetime import timedelta
from types import SimpleNamespace

import pytest

from lightning_green.run.boundaries import Boundaries
from lightning_green.run.signals import StopSignals
from lightning_green.strategies.control_group import Command, ControlGroup
from lightning_green.utilities.clock import SystemClock
from tests.helpers.ledgers import read_records
from tests.helpers.recording_state import RecordingState
from tests.helpers.scripted_ranks import ScriptedRanks


class Stop(Exception):
    pass


def stop(*arguments):
    raise Stop(*arguments)


@pytest.fixture
def make(opened):
    """Return a function that creates boundaries whose actions and state write to ``calls``."""

    def create(ranks=None, **given):
        session, _ = opened(**given)
        calls, trainer = [], SimpleNamespace(global_step=1, callbacks=[])
        boundaries = Boundaries(
            session,
            trainer,
            ControlGroup() if ranks is None else ranks,
            RecordingState(calls=calls),
            StopSignals(),
            [lambda point: calls.append(("action", point))],
            stop,
            stop,
        )
        return SimpleNamespace(boundaries=boundaries, calls=calls, trainer=trainer, session=session)

    return create


def test_actions_are_called_before_a_state_that_is_due_is_saved(make):
    made = make()
    made.boundaries.reached("batch")
    assert made.calls == [("check", "batch"), ("action", "batch"), ("save if due", "batch")]


def test_state_is_checked_once_after_the_first_step(make):
    made = make()
    for step in (0, 1, 2):
        made.trainer.global_step = step
        made.boundaries.reached("batch")
    assert [call[0] for call in made.calls].count("check") == 1
    assert made.calls.index(("check", "batch")) == 2


def test_signal_ends_the_fit_before_any_action(make):
    made = make()
    made.boundaries._signals.set(signal.SIGTERM)
    with pytest.raises(Stop) as stopped:
        made.boundaries.reached("epoch")
    assert stopped.value.args == ("epoch", "SIGTERM")
    assert made.calls == [("check", "epoch")]


def test_boundaries_sample_on_a_simulated_clock(make, tmp_path):
    made = make()
    made.session.clock.sleep(timedelta(hours=1).total_seconds())
    made.boundaries.reached("batch")
    assert [record["event"] for record in read_records(tmp_path / "run")] == ["started", "sample"]


@pytest.fixture
def real(make):
    """Return boundaries on rank 0 of two, on the system clock, after the first sync."""
    made = make(ScriptedRanks(), clock=SystemClock())
    made.boundaries.reached("epoch")
    made.calls.clear()
    return made


def test_ranks_sync_at_the_first_boundary_and_then_if_a_second_has_passed(real):
    for _ in range(3):
        real.boundaries.batch_begins()
        real.boundaries.reached("batch")
    real.boundaries._synced_at -= 1.0
    real.boundaries.batch_begins()
    assert real.calls == []
    real.boundaries.reached("batch")
    assert ("action", "batch") in real.calls
    assert real.boundaries._ranks.asked == [0, 0, 0, 1]


def test_ranks_sync_at_every_boundary_on_a_simulated_clock(make):
    made = make(ScriptedRanks())
    for point in ("epoch", "batch", "epoch"):
        made.boundaries.reached(point)
        made.boundaries.batch_begins()
    assert [call for call in made.calls if call[0] == "action"] == [
        ("action", "epoch"),
        ("action", "batch"),
        ("action", "epoch"),
    ]
    assert made.boundaries._ranks.sent == [(Command.CONTINUE,)] * 3


@pytest.mark.parametrize(("done", "total", "due"), [(2, 4, 0), (3, 4, 1), (7, float("inf"), 1)])
def test_ranks_sync_at_each_end_of_an_epoch_if_states_are_saved_only_there(real, done, total, due):
    progress = SimpleNamespace(current=SimpleNamespace(ready=done))
    real.trainer.num_training_batches = total
    real.trainer.fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    real.boundaries._state.limits.epochs_only = True
    real.boundaries.batch_begins()
    assert real.boundaries._ranks.asked == [due]


@pytest.mark.parametrize("own", [True, False])
def test_signal_before_a_batch_ends_the_fit_at_the_boundary_that_was_just_reached(real, own):
    real.boundaries.reached("batch")
    real.boundaries._ranks.other = 0 if own else int(signal.SIGTERM)
    if own:
        real.boundaries._signals.set(signal.SIGTERM)
    real.boundaries._ranks.all_reduce_max = lambda number: int(signal.SIGTERM)
    with pytest.raises(Stop) as stopped:
        real.boundaries.batch_begins()
    assert stopped.value.args == ("batch", "SIGTERM")


def test_signal_waits_for_the_next_boundary_if_another_rank_begins_an_epoch(real):
    real.boundaries.reached("batch")
    real.boundaries._signals.set(signal.SIGTERM)
    real.boundaries._ranks.elsewhere = 1
    real.boundaries.batch_begins()
    with pytest.raises(Stop):
        real.boundaries.reached("batch")


def test_signal_before_the_first_batch_of_an_epoch_ends_the_fit_at_the_next_boundary(real):
    real.boundaries.reached("epoch")
    real.boundaries._signals.set(signal.SIGTERM)
    real.boundaries.batch_begins()  # hooks of the epoch have run since
    with pytest.raises(Stop) as stopped:
        real.boundaries.reached("batch")
    assert stopped.value.args == ("batch", "SIGTERM")


def test_signal_of_another_rank_ends_the_fit_on_rank_zero(make):
    made = make(ScriptedRanks(other=int(signal.SIGTERM)))
    with pytest.raises(Stop) as stopped:
        made.boundaries.reached("batch")
    assert stopped.value.args == ("batch", "SIGTERM")


def test_other_rank_follows_the_commands_and_acts_on_nothing_itself(make):
    commands = [(Command.SAVE, 4, 1), (Command.CONTINUE,), (Command.INTERRUPT, int(signal.SIGTERM))]
    ranks = ScriptedRanks(1, received=commands)
    made = make(ranks)
    made.boundaries.reached("batch")
    assert made.calls == [("check", "batch"), ("dump", "batch", 4)]
    made.boundaries.batch_begins()
    assert ranks.asked == [0]
    ranks.other = int(signal.SIGTERM)
    made.boundaries.reached("batch")
    with pytest.raises(Stop) as stopped:
        made.boundaries.batch_begins()
    assert stopped.value.args == (Command.INTERRUPT, int(signal.SIGTERM))


def test_hold_keeps_the_other_ranks_waiting_until_a_signal_or_its_end(make):
    ranks = ScriptedRanks()
    made = make(ranks)
    assert not made.boundaries.stop_requested()
    ranks.other = int(signal.SIGINT)
    assert made.boundaries.stop_requested()
    assert ranks.sent == [(Command.HEARTBEAT,)] * 2


def test_end_of_a_hold_shifts_the_limits_of_wall_time_on_every_rank(make):
    ranks = ScriptedRanks()
    made = make(ranks)
    made.trainer._last_val_time = 100.0
    made.boundaries.end_hold(30.0)
    assert made.trainer._last_val_time == 130.0
    assert ranks.sent == [(Command.RESUME, 30.0)]
