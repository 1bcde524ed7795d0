"""All ranks of a training have the same callbacks."""

from types import SimpleNamespace

import pytest
import torch.distributed as dist

from lightning_green.run import same_callbacks
from lightning_green.run.same_callbacks import SameCallbacks


@pytest.fixture
def create(monkeypatch):
    """Return a function that creates what a rank of two compares, over one store."""
    store, stopped = dist.HashStore(), []
    monkeypatch.setattr(same_callbacks, "process_group_store", lambda: store)
    monkeypatch.setattr(same_callbacks, "stop_other_ranks", stopped.append)

    def rank(number, *names, size=2):
        monkeypatch.setattr(same_callbacks, "_numbers", iter([0]))
        strategy = SimpleNamespace(setup_environment=lambda: None)
        trainer = SimpleNamespace(strategy=strategy, global_rank=number, world_size=size)
        return SameCallbacks(trainer, names), strategy, stopped

    return rank


def test_equal_callbacks_in_any_order_are_accepted(create):
    ranks = [create(0, "A", "B"), create(1, "B", "A")]
    for _, strategy, _ in ranks:
        strategy.setup_environment()
    for callbacks, _, stopped in ranks:
        callbacks.check()
        assert stopped == []


@pytest.mark.parametrize(("names", "found"), [(["B"], "B"), ([], "no callback that saves states")])
def test_other_callbacks_are_an_error_on_each_rank_and_stop_the_others(create, names, found):
    first, strategy, stopped = create(0, "A")
    other, other_strategy, _ = create(1, *names)
    strategy.setup_environment()
    other_strategy.setup_environment()
    with pytest.raises(ValueError, match=f"rank 0 has A, rank 1 has {found}. Add the callbacks on all ranks."):
        first.check()
    assert len(stopped) == 1
    if names:
        with pytest.raises(ValueError, match="rank 1 has B, rank 0 has A"):
            other.check()


def test_single_process_and_callbacks_that_do_not_communicate_are_not_compared(create):
    for callbacks, *_ in (create(0, "A", size=1), create(0)):
        callbacks.check()
