"""Which trainings keep their state in pieces; that the pieces come back is shown on two ranks, in tests/resume."""

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from lightning_green.runtime.exact import why_not_exact
from lightning_green.runtime.shards import is_sharded


class OnCPU(FSDPStrategy):
    """FSDP that Lightning does not refuse on a CPU."""


def trainer(strategy, *callbacks):
    return pl.Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False, callbacks=list(callbacks))


@pytest.mark.parametrize("strategy", [OnCPU, ModelParallelStrategy])
def test_a_sharded_model_is_saved_exactly(strategy):
    assert is_sharded(trainer(strategy()))
    assert why_not_exact(trainer(strategy())) is None
    assert not is_sharded(trainer("ddp"))


@pytest.mark.parametrize("average", [EMAWeightAveraging(), StochasticWeightAveraging(swa_lrs=0.1)])
def test_an_averaged_model_in_pieces_is_not(average):
    assert why_not_exact(trainer("ddp", average)) is None
    why = why_not_exact(trainer(OnCPU(), average))
    assert why == (
        f"the averaged model of {type(average).__name__} is not saved exactly with OnCPU; use DDP, or leave the "
        "callback out"
    )
