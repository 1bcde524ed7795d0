"""Which trainings keep their state in pieces; that the pieces come back is shown on two ranks, in tests/resume."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torchmetrics import MeanMetric

from lightning_green.resume.training_state import why_not_exact
from lightning_green.strategies.sharded_state import is_sharded


class OnCPU(FSDPStrategy):
    """FSDP that Lightning does not refuse on a CPU."""


def trainer(strategy, *callbacks, model=None):
    made = pl.Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False, callbacks=list(callbacks))
    made.strategy.connect(model or BoringModel())
    return made


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


class Extra(torch.nn.Linear):
    def get_extra_state(self):
        return {"scale": 1}


@pytest.mark.parametrize("part", [Extra(2, 2), MeanMetric()])
def test_what_a_module_keeps_beside_its_tensors_is_not(part):
    model = BoringModel()
    model.part = part
    if isinstance(part, MeanMetric):
        assert why_not_exact(trainer(OnCPU(), model=model)) is None
        part.persistent(True)
    assert why_not_exact(trainer("ddp", model=model)) is None
    assert f"{type(part).__name__} keeps more in its `state_dict`" in why_not_exact(trainer(OnCPU(), model=model))


def test_deepspeed_is_no_ddp(monkeypatch):
    made = trainer("ddp")
    monkeypatch.setattr(made.strategy, "__class__", DeepSpeedStrategy)
    assert why_not_exact(made) == "the states of DeepSpeedStrategy are not saved exactly; use DDP or FSDP"
