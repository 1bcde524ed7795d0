"""Every private attribute of Lightning that the precision plugins touch beside ``_lightning/trainer.py``.

Written against Lightning 2.6.6; ``tests/precision/test_lightning.py`` asserts that each still exists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch.optim import Optimizer


def handles_unscaling(optimizer: Optimizer) -> bool:
    """Return whether the optimizer is fused: its kernel unscales gradients and can skip a step by itself."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def raw_optimizer(optimizer: Any) -> Optimizer:
    """Return the torch optimizer inside Lightning's wrapper."""
    raw: Optimizer = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
    return raw


def has_hook(module: pl.LightningModule, name: str) -> bool:
    """Return whether the module or a callback has a hook of its own by this name."""
    if name in module.__dict__ or getattr(type(module), name) is not getattr(pl.LightningModule, name):
        return True
    base = getattr(pl.Callback, name)
    hooks = [getattr(callback, name) for callback in module.trainer.callbacks]  # type: ignore[attr-defined]
    return any(callable(hook) and getattr(hook, "__func__", hook) is not base for hook in hooks)  # None is no hook


def somebody_looks_at_gradients(module: pl.LightningModule) -> bool:
    """Return whether anything of the user's sees the gradients between backward and step.

    That is a hook, a clipping of their own, or manual optimization.
    """
    for name in ("configure_gradient_clipping", "clip_gradients"):
        if name in module.__dict__ or getattr(type(module), name) is not getattr(pl.LightningModule, name):
            return True
    return not module.automatic_optimization or has_hook(module, "on_before_optimizer_step")


def hold_schedulers(trainer: pl.Trainer, held: Callable[[int, int], bool]) -> Callable[[], None]:
    """Ask ``held(index, frequency)`` before a scheduler is advanced by a step; return what undoes it."""
    epoch_loop, strategy = trainer.fit_loop.epoch_loop, trainer.strategy
    original = epoch_loop.update_lr_schedulers

    def update_lr_schedulers(interval: str, update_plateau_schedulers: bool) -> None:
        configs = strategy.lr_scheduler_configs
        if not configs or interval != "step" or update_plateau_schedulers or epoch_loop._should_accumulate():
            original(interval, update_plateau_schedulers)
            return
        due = [
            c.interval == "step" and not c.reduce_on_plateau and (epoch_loop.batch_idx + 1) % c.frequency == 0
            for c in configs
        ]
        strategy.lr_scheduler_configs = [c for i, c in enumerate(configs) if not (due[i] and held(i, int(c.frequency)))]
        try:
            original(interval, update_plateau_schedulers)
        finally:
            strategy.lr_scheduler_configs = configs

    epoch_loop.update_lr_schedulers = update_lr_schedulers  # type: ignore[method-assign]

    def undo() -> None:
        epoch_loop.__dict__.pop("update_lr_schedulers", None)

    return undo


def takes_batch_idx(module: pl.LightningModule) -> bool:
    """Return whether ``training_step`` has the argument ``batch_idx``, asked as the training loop asks."""
    return is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
