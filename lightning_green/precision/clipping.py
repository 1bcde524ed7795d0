"""What happens to gradients between backward and step."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.plugins.precision.precision import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch.optim import Optimizer
from typing_extensions import override

from lightning_green._lightning import precision as _lightning
from lightning_green.precision.gradients import (
    clip_by_value_,
    clip_factor,
    has_gradients,
    plain_gradients,
    total_norm,
)
from lightning_green.precision.loss_scaler import ScalerRounds


class GreenClipping(Precision):
    """The part of the plugins that unscales and clips, in as few passes as what looks at the gradients allows.

    Hooks that nobody has written are not called: with a small model they are a good part of a step.
    """

    scaler: Any
    _trainer: pl.Trainer | None
    _clips_alone = True
    """Whether the norm of the gradients that a rank has is the norm of the whole gradient."""

    def _prepare_gradients(self, optimizer: Optimizer, model: pl.LightningModule, scaler: ScalerRounds) -> None:
        """Unscale, call the hooks and clip; in as few passes as what looks at the gradients allows."""
        if not _lightning.somebody_looks_at_gradients(model):
            clip, algorithm = model.trainer.gradient_clip_val, model.trainer.gradient_clip_algorithm
            if not clip:
                return  # `step` unscales, or the fused kernel does
            by_norm = algorithm in (None, GradClipAlgorithmType.NORM)
            if by_norm and self._clips_alone and scaler.unscale_and_clip_(optimizer, float(clip)):
                return
        if not scaler.is_unscaled(optimizer):
            scaler.unscale_(optimizer)
        self._after_closure(model, optimizer)

    @override
    def _after_closure(self, model: pl.LightningModule, optimizer: Any) -> None:
        """Call the hooks and clip; where there are no hooks of anybody's, clip."""
        if _lightning.somebody_looks_at_gradients(model):
            super()._after_closure(model, optimizer)
        elif clip := model.trainer.gradient_clip_val:
            algorithm = model.trainer.gradient_clip_algorithm or GradClipAlgorithmType.NORM
            self.clip_gradients(optimizer, clip, algorithm)

    @override
    def clip_gradients(
        self,
        optimizer: Optimizer,
        clip_val: int | float = 0.0,
        gradient_clip_algorithm: GradClipAlgorithmType = GradClipAlgorithmType.NORM,
    ) -> None:
        raw = _lightning.raw_optimizer(optimizer)
        if self.scaler is not None and clip_val > 0 and not self.scaler.is_unscaled(raw):
            self.scaler.unscale_(raw)  # manual optimization: the limit is meant for the real gradients
        Precision.clip_gradients(self, raw, clip_val, gradient_clip_algorithm)

    @override
    def clip_grad_by_norm(self, optimizer: Optimizer, clip_val: int | float) -> None:
        gradients = plain_gradients(optimizer)
        module = None if self._trainer is None else self._trainer.lightning_module
        if (
            gradients is not None
            and self.scaler is None
            and _lightning.handles_unscaling(optimizer)
            and module is not None
            and not _lightning.somebody_looks_at_gradients(module)
        ):
            # the kernel divides by this on its way: no pass over the gradients of its own
            optimizer.grad_scale = clip_factor(total_norm(gradients), float(clip_val)).reciprocal()  # type: ignore[attr-defined]
        else:
            super().clip_grad_by_norm(optimizer, clip_val)

    @override
    def clip_grad_by_value(self, optimizer: Optimizer, clip_val: int | float) -> None:
        gradients = plain_gradients(optimizer)
        if gradients is not None:
            clip_by_value_(gradients, float(clip_val))
        elif has_gradients(optimizer):  # torch raises where there are none
            super().clip_grad_by_value(optimizer, clip_val)
