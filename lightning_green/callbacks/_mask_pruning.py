"""The part of the ``Pruning`` callback that masks weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from lightning_green.callbacks._compression import averages_weights, optimizer_steps, report_left
from lightning_green.callbacks._update_schedule import UpdateSchedule
from lightning_green.callbacks._weight_copies import WeightCopies
from lightning_green.compression.pruning.mask_pruner import MaskPruner
from lightning_green.compression.pruning.parameters import plain_name


class MaskPruning(Callback):
    """Update masks on a schedule and apply them after every optimizer step.

    Args:
        make_pruner: Returns the masks of a module.
        schedule: The optimizer steps at which masks are updated.

    """

    def __init__(self, make_pruner: Callable[[nn.Module], MaskPruner], schedule: UpdateSchedule) -> None:
        self.pruner: MaskPruner | None = None
        self._make_pruner, self._schedule = make_pruner, schedule
        self._handles: list[RemovableHandle] = []
        self._copies: WeightCopies | None = None

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.pruner is None or not self.pruner.masked.belong_to(pl_module):
            self.pruner = self._make_pruner(pl_module)
            self._schedule.reset()

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.pruner is not None
        self.pruner.masked.move_masks()
        self.pruner.apply()

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.pruner is not None
        pruner = self.pruner
        children = {name: child for name, child in pl_module.named_children() if any(True for _ in child.parameters())}
        self._copies = WeightCopies(trainer, pl_module, {**children, "": pl_module})
        pruner.leave_out(map(plain_name, self._copies.names(pl_module)))
        report_left(pruner.left(), len(pruner.named), "weights")

        def apply_masks(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            pruner.apply(optimizer)

        self._handles += [optimizer.register_step_post_hook(apply_masks) for optimizer in trainer.optimizers]

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        assert self.pruner is not None
        assert self._schedule.span is not None
        step = optimizer_steps(trainer)
        if self.pruner.criterion == "movement" and step <= self._schedule.span.end:
            self.pruner.accumulate_movement(optimizer)
        if not self._schedule.is_due(step) or not self.pruner.can_update():
            return
        emptied = self.pruner.update(self._schedule.progress(step))
        if trainer.world_size > 1:  # masks are equal while weights and gradients are equal; broadcasting ensures it
            self.pruner.masked.masks = trainer.strategy.broadcast(self.pruner.masked.masks)
        if emptied:
            rank_zero_warn(
                f"Pruning removed all weights of {', '.join(emptied)}. Set `scope='layer'` or list them in `exclude`."
            )
        self._schedule.note_update(step)
        self._apply_to_copies()

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._apply_to_copies()

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._apply_to_copies()

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.pruner is not None
        self.pruner.apply()  # `WeightAveraging` may have replaced the weights at the end of the training
        self._apply_to_copies()

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._apply_to_copies()
        if self.pruner is None or not averages_weights(trainer):
            return
        state = checkpoint["state_dict"]  # averaged weights, which are not zero where the current ones are
        for name, mask in self.pruner.masked.masks.items():
            if name in state:
                state[name] = state[name] * mask.to(state[name].device, state[name].dtype)

    @torch.no_grad()
    def _apply_to_copies(self) -> None:
        """Mask moving averages of the weights, in which a pruned weight would only fade."""
        if self._copies is None or self.pruner is None:
            return
        masks = self.pruner.masked.masks
        for name, copy in self._copies.parameters():
            if (mask := masks.get(plain_name(name))) is not None:
                copy.mul_(mask.to(copy.device, copy.dtype))

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"pruner": {} if self.pruner is None else self.pruner.state_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.pruner is not None:
            if state_dict["pruner"]:
                self.pruner.load_state_dict(state_dict["pruner"])
            self.pruner.apply()

    def sparsity(self, pl_module: pl.LightningModule) -> dict[str, float]:
        """Return the fraction of zeros in each parameter by name, and in all of them under ``""``."""
        assert self.pruner is not None
        return self.pruner.sparsity()
