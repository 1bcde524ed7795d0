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
    made.boundaries._signals.received = "SIGTERM"
    with pytest.raises(Stop) as stopped:
        made.boundaries.reached("epoch")
    assert stopped.value.args == ("epoch", "SIGTERM")
    assert made.calls == [("check", "epoch")]


def test_boundaries_sample_on_a_simulated_clock(make, tmp_path):
    made = make()
    made.session.clock.sleep(timedelta(hours=1).total_seconds())
    made.boundaries.reached("batch")
    assert [record["event"] for record in read_records(tmp_path / "run")] == ["started", "sample"]


def test_ranks_act_only_at_boundaries_at_which_they_sync(make):
    ranks = ScriptedRanks()
    made = make(ranks)
    ranks.due = False
    made.boundaries.reached("batch")
    assert ("action", "batch") not in made.calls
    ranks.due = True
    made.boundaries.reached("batch")
    assert ("action", "batch") in made.calls


@pytest.mark.parametrize("simulated", [True, False])
def test_rank_zero_schedules_the_next_sync_after_its_actions(make, simulated):
    ranks = ScriptedRanks()
    made = make(ranks, **({} if simulated else {"clock": SystemClock()}))
    made.boundaries.reached("batch")
    assert ranks.next_syncs == [simulated]


def test_signal_of_another_rank_ends_the_fit_on_rank_zero(make):
    made = make(ScriptedRanks(other=int(signal.SIGTERM)))
    with pytest.raises(Stop) as stopped:
        made.boundaries.reached("batch")
    assert stopped.value.args == ("batch", "SIGTERM")


def test_other_rank_follows_the_commands_and_acts_on_nothing_itself(make):
    commands = [(Command.SAVE, 4, 1), (Command.CONTINUE, 3), (Command.INTERRUPT, int(signal.SIGTERM))]
    ranks = ScriptedRanks(1, received=commands)
    made = make(ranks)
    made.boundaries.reached("batch")
    assert made.calls == [("check", "batch"), ("dump", "batch", 4)]
    assert ranks.next_syncs == [3]
    with pytest.raises(Stop) as stopped:
        made.boundaries.reached("batch")
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
