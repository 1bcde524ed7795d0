"""Which trainings save shards. ``tests/resume/test_sharded.py`` restores shards on two ranks."""

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
    """FSDP that Lightning accepts on a CPU."""


def trainer(strategy, *callbacks, model=None):
    made = pl.Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False, callbacks=list(callbacks))
    made.strategy.connect(model or BoringModel())
    return made


@pytest.mark.parametrize("strategy", [OnCPU, ModelParallelStrategy])
def test_sharded_model_is_saved_exactly(strategy):
    assert is_sharded(trainer(strategy()))
    assert why_not_exact(trainer(strategy())) is None
    assert not is_sharded(trainer("ddp"))


@pytest.mark.parametrize("average", [EMAWeightAveraging(), StochasticWeightAveraging(swa_lrs=0.1)])
def test_averaged_model_of_a_sharded_one_is_not_saved_exactly(average):
    assert why_not_exact(trainer("ddp", average)) is None
    why = why_not_exact(trainer(OnCPU(), average))
    assert why == (
        f"the averaged model of {type(average).__name__} is not saved exactly with OnCPU; use DDP or remove the "
        "callback"
    )


class Extra(torch.nn.Linear):
    def get_extra_state(self):
        return {"scale": 1}


@pytest.mark.parametrize("part", [Extra(2, 2), MeanMetric()])
def test_extra_state_of_a_sharded_module_is_not_saved_exactly(part):
    model = BoringModel()
    model.part = part
    if isinstance(part, MeanMetric):
        assert why_not_exact(trainer(OnCPU(), model=model)) is None
        part.persistent(True)
    assert why_not_exact(trainer("ddp", model=model)) is None
    assert f"{type(part).__name__} keeps more in its `state_dict`" in why_not_exact(trainer(OnCPU(), model=model))


def test_deepspeed_is_not_saved_exactly(monkeypatch):
    made = trainer("ddp")
    monkeypatch.setattr(made.strategy, "__class__", DeepSpeedStrategy)
    assert why_not_exact(made) == "the states of DeepSpeedStrategy are not saved exactly; use DDP or FSDP"
