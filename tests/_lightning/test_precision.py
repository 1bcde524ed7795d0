import inspect

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins.precision.precision import Precision
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

from lightning_green._lightning import precision as _lightning


def test_each_private_attribute_exists():
    trainer = pl.Trainer(accelerator="cpu", logger=False)
    loop = trainer.fit_loop.epoch_loop
    assert list(inspect.signature(loop.update_lr_schedulers).parameters) == ["interval", "update_plateau_schedulers"]
    assert "self._update_learning_rates" in inspect.getsource(type(loop).update_lr_schedulers)
    assert "trainer.lr_scheduler_configs" in inspect.getsource(type(loop)._update_learning_rates)
    assert callable(loop._should_accumulate)
    assert list(inspect.signature(Precision._after_closure).parameters) == ["self", "model", "optimizer"]
    assert list(inspect.signature(Precision._clip_gradients).parameters)[:3] == ["self", "model", "optimizer"]
    assert isinstance(loop.batch_idx, int)
    trainer.strategy.lr_scheduler_configs = ["x"]
    assert trainer.lr_scheduler_configs == ["x"]
    assert isinstance(inspect.getattr_static(LightningOptimizer, "optimizer"), property)
    assert list(inspect.signature(is_param_in_hook_signature).parameters) == [
        "hook_fx",
        "param",
        "explicit",
        "min_args",
    ]


def test_fused_optimizers_handle_unscaling():
    parameter = [torch.nn.Parameter(torch.zeros(2))]
    assert _lightning.handles_unscaling(torch.optim.AdamW(parameter, fused=True))
    assert not _lightning.handles_unscaling(torch.optim.AdamW(parameter))
