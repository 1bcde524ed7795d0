"""Private attributes and methods of Lightning that the precision plugins use.

Written for Lightning 2.6. ``tests/_lightning/test_precision.py`` checks that each one exists.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.plugins.precision.precision import Precision
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch.optim import Optimizer
from typing_extensions import override

from lightning_green._lightning.namespaces import OfBothPackages, same_package


class PrecisionOfBothPackages(OfBothPackages, Precision):
    """A precision plugin for a Trainer of ``lightning.pytorch`` or of ``pytorch_lightning``."""

    @override
    def _clip_gradients(self, model: Any, *args: Any, **kwargs: Any) -> None:
        # Each package clips the gradients of its own modules, and silently not those of other objects.
        same_package(model, Precision)._clip_gradients(self, model, *args, **kwargs)


def handles_unscaling(optimizer: Optimizer) -> bool:
    """Return whether the optimizer is fused, so that its kernel can unscale gradients and skip a step."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def run_gradient_hooks(plugin: Precision, module: pl.LightningModule, optimizer: Any) -> None:
    """Call ``on_before_optimizer_step`` and clip the gradients."""
    plugin._after_closure(module, optimizer)


def takes_batch_idx(module: pl.LightningModule) -> bool:
    """Return whether the training loop passes ``batch_idx`` to ``training_step``."""
    return is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)


@contextmanager
def skip_scheduler_steps(trainer: pl.Trainer, skips: Callable[[int, int], bool]) -> Generator[None, None, None]:
    """Skip steps of learning-rate schedulers with ``interval="step"`` while the context is active.

    Args:
        trainer: The Trainer.
        skips: Called with the index and the frequency of each scheduler that is due. Returns whether it is skipped.

    """
    epoch_loop, strategy = trainer.fit_loop.epoch_loop, trainer.strategy
    original = epoch_loop.update_lr_schedulers

    def update_lr_schedulers(interval: str, update_plateau_schedulers: bool) -> None:
        configs = strategy.lr_scheduler_configs
        if not configs or interval != "step" or update_plateau_schedulers or epoch_loop._should_accumulate():
            original(interval, update_plateau_schedulers)
            return
        due = [
            config.interval == "step"
            and not config.reduce_on_plateau
            and (epoch_loop.batch_idx + 1) % config.frequency == 0
            for config in configs
        ]
        strategy.lr_scheduler_configs = [
            config for i, config in enumerate(configs) if not (due[i] and skips(i, int(config.frequency)))
        ]
        try:
            original(interval, update_plateau_schedulers)
        finally:
            strategy.lr_scheduler_configs = configs

    epoch_loop.update_lr_schedulers = update_lr_schedulers  # type: ignore[method-assign]
    try:
        yield
    finally:
        del epoch_loop.update_lr_schedulers
