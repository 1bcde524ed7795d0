"""Base class of the precision plugins: choice of the precision, skipped steps, fallback and checkpoint state."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins.precision.precision import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType, rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from typing_extensions import override

from lightning_green._lightning.loggers import logging_step, should_log
from lightning_green._lightning.namespaces import both, check_package
from lightning_green._lightning.precision import (
    PrecisionOfBothPackages,
    handles_unscaling,
    run_gradient_hooks,
    skip_scheduler_steps,
)
from lightning_green.precision.choice import LightningName, choose_precision, device_support
from lightning_green.precision.keep_fp32 import KeptModules, find_modules, keep_in_float32
from lightning_green.precision.settings import PrecisionSettings
from lightning_green.precision.skipped_steps import SkippedSteps

SCALER_KEYS = (
    "GreenMixedPrecision",
    "GreenFSDPPrecision",
    "MixedPrecision",
    "FSDPPrecision",
    "native_amp_scaling_state",
)
"""Checkpoint keys of a loss scale, for checkpoints of other plugins. The first two also contain the counts."""


class GreenPrecision(PrecisionOfBothPackages, ABC):
    """Mixed precision that counts skipped steps and reacts to repeated overflows.

    Args:
        settings: The arguments of the plugin.

    """

    scaler_key = ""
    """Key under which Lightning's plugin for the same strategy keeps the state of its scaler in a checkpoint."""
    precision: Any
    scaler: Any

    def __init__(self, settings: PrecisionSettings) -> None:
        self.settings = settings
        self.scaler = None
        self.fell_back_from: str | None = None
        self._skips = SkippedSteps()
        self._cleanup = ExitStack()
        self._trainer: pl.Trainer | None = None
        self._module: weakref.ref[nn.Module] | None = None
        self._kept: KeptModules | None = None
        self._first_step: int | None = None
        self._has_warned = False

    @abstractmethod
    def _use(self, name: LightningName, device_type: str) -> None:
        """Switch to the precision ``name``."""

    @abstractmethod
    def _fall_back(self, reason: str) -> None:
        """React to repeated overflows, described by ``reason``."""

    @property
    def skipped_steps(self) -> int:
        """Optimizer steps that were skipped because of an overflow, over all restarts."""
        return self._skips.total

    @property
    def last_step_was_skipped(self) -> bool:
        """Whether the last optimizer step was skipped. Waits for the device if needed."""
        self._read_outcomes()
        return self._skips.consecutive > 0

    # --- setup --------------------------------------------------------------------------------------------------------

    @override
    def convert_module(self, module: nn.Module) -> nn.Module:
        assert isinstance(module, both(pl.LightningModule))
        check_package(module.trainer)
        self._cleanup.close()
        if self._trainer is not module.trainer or self._module is None or self._module() is not module:
            self.fell_back_from, self._skips = None, SkippedSteps()  # another training has other overflows
            self._first_step, self._has_warned = None, False
        self._trainer, self._module = module.trainer, weakref.ref(module)
        device = self._trainer.strategy.root_device
        if self.fell_back_from is None:
            requested = self.settings.precision
            choice = choose_precision(requested, device_support(device))
            self._use(choice.name, device.type)
            if requested == "auto" or choice.emulated:
                rank_zero_info(f"{type(self).__name__}: {choice.name}, because {choice.reason}.")
        kept = find_modules(module, self.settings.keep_fp32)
        self._kept = self._cleanup.enter_context(keep_in_float32(kept, device.type))
        return module

    @override
    def connect(
        self, model: nn.Module, optimizers: list[Optimizer], lr_schedulers: list[Any]
    ) -> tuple[nn.Module, list[Optimizer], list[Any]]:
        assert self._trainer is not None
        if self.scaler is not None and any(isinstance(optimizer, LBFGS) for optimizer in optimizers):
            if self.settings.precision == "fp16":
                raise ValueError(
                    "LBFGS evaluates the loss several times per step, which does not work with loss scaling. Use "
                    "precision='bf16' or 'fp32', or another optimizer."
                )
            self._use("32-true", self._trainer.strategy.root_device.type)
        self._cleanup.enter_context(skip_scheduler_steps(self._trainer, self._skips.skip_scheduler))
        return model, optimizers, lr_schedulers

    @override
    def teardown(self) -> None:
        self._cleanup.close()
        super().teardown()

    # --- steps --------------------------------------------------------------------------------------------------------

    @override
    @contextmanager
    def train_step_context(self) -> Generator[None, None, None]:
        self._end_manual_steps()
        if self._kept is not None and self.precision != "32-true":
            self._warn_of_unused_modules(self._kept)
        with self.forward_context():
            yield
        self._end_manual_steps()

    @override
    def backward(  # type: ignore[override]
        self, tensor: Tensor, model: pl.LightningModule, optimizer: Any, *args: Any, **kwargs: Any
    ) -> None:
        # manual optimization runs backward inside `training_step`, where autocast would cast float32 gradients
        with torch.autocast(tensor.device.type, enabled=False):
            super().backward(tensor, model, optimizer, *args, **kwargs)

    @override
    def optimizer_step(  # type: ignore[override]
        self, optimizer: Any, model: pl.LightningModule, closure: Callable[[], Any], **kwargs: Any
    ) -> Any:
        self._read_outcomes()  # may change the precision
        try:
            if self.scaler is None:
                return super().optimizer_step(optimizer, model=model, closure=closure, **kwargs)
            return self._scaled_step(optimizer, model, closure, **kwargs)
        finally:
            torch.clear_autocast_cache()  # manual optimization changes the weights inside `training_step`

    def _warn_of_unused_modules(self, kept: KeptModules) -> None:
        """Warn once, in the batch after the first step, of modules that are to compute in float32 and did not."""
        assert self._trainer is not None
        step = self._trainer.global_step
        if self._first_step is None:
            self._first_step = step
        if self._has_warned or step <= self._first_step:
            return
        self._has_warned = True
        unused = kept.never_called()
        if unused:
            names = ", ".join(f"`{name}`" for name in unused)
            rank_zero_warn(
                f"`keep_fp32` has had no effect on {names}: until the first step, they were not called as modules. "
                "Name the modules that compute, such as the layers of a container, or use `torch.autocast(device_type, "
                "enabled=False)` where their weights are used."
            )

    def _scaled_step(self, optimizer: Any, model: pl.LightningModule, closure: Callable[[], Any], **kwargs: Any) -> Any:
        if isinstance(optimizer, LBFGS):
            raise ValueError("LBFGS does not work with loss scaling. Use precision='bf16' or 'fp32'.")
        result = closure()
        if not self.scaler.is_unscaled(optimizer):
            self.scaler.unscale_(optimizer)  # without a loss too, for gradients of other batches of the window
        run_gradient_hooks(self, model, optimizer)
        if result is None and model.automatic_optimization:  # `training_step` returned None, so there was no backward
            self.scaler.discard(optimizer)
            return result
        result = self.scaler.step(optimizer, **kwargs)
        if model.automatic_optimization:
            self._end_steps(defer=self._defers_reading(optimizer))
        return result

    @override
    def clip_gradients(
        self,
        optimizer: Optimizer,
        clip_val: int | float = 0.0,
        gradient_clip_algorithm: GradClipAlgorithmType = GradClipAlgorithmType.NORM,
    ) -> None:
        raw: Any = optimizer.optimizer if isinstance(optimizer, both(LightningOptimizer)) else optimizer
        by_value = gradient_clip_algorithm == GradClipAlgorithmType.VALUE
        if by_value and all(p.grad is None for p in self.main_params(raw)):
            return  # PyTorch raises if there are no gradients
        if clip_val > 0 and self.scaler is not None and self._is_manual() and not self.scaler.is_unscaled(raw):
            self.scaler.unscale_(raw)
        Precision.clip_gradients(self, raw, clip_val, gradient_clip_algorithm)  # Lightning's plugin rejects fused ones

    def _is_manual(self) -> bool:
        return self._trainer is not None and not self._trainer.lightning_module.automatic_optimization

    def _defers_reading(self, optimizer: Optimizer) -> bool:
        """Return whether the host reads the outcome of a step when the next step begins.

        A fused optimizer on CUDA skips a step on the device. Reading the outcome immediately would make the host wait.
        """
        on_cuda = self._trainer is not None and self._trainer.strategy.root_device.type == "cuda"
        return on_cuda and handles_unscaling(optimizer)

    def _end_steps(self, defer: bool = False) -> None:
        """Update the scale after the optimizer steps of a training step, and count the skipped ones."""
        assert self._trainer is not None
        manual = self._trainer.optimizers if self._is_manual() else []
        accumulating = [one for one in manual if not self.scaler.has_stepped(one)]  # while another optimizer steps
        before = self.scaler.get_scale() if accumulating else 1.0
        self.scaler.update()
        for optimizer in accumulating:
            self.scaler.rescale(optimizer, before)
        self._skips.add(self.scaler.overflow)
        if not defer:
            self._read_outcomes()
        if should_log(self._trainer):
            scale = 1.0 if self.scaler is None else float(self.scaler.get_scale())
            metrics = {"precision/loss_scale": scale, "precision/skipped_steps": float(self._skips.total)}
            for logger in self._trainer.loggers:
                logger.log_metrics(metrics, step=logging_step(self._trainer))

    def _end_manual_steps(self) -> None:
        if self.scaler is not None and self.scaler.has_steps:
            self._end_steps()

    def _read_outcomes(self) -> None:
        if not self._skips.has_unread:
            return
        assert self._trainer is not None
        if not self._skips.read(len(self._trainer.strategy.lr_scheduler_configs)) or self.scaler is None:
            return
        scale = float(self.scaler.get_scale())
        if self._skips.consecutive >= self.settings.max_consecutive_skips:
            self._fall_back(f"{self._skips.consecutive} consecutive steps overflowed")
        elif scale < self.settings.min_scale:
            self._fall_back(f"the loss scale fell to {scale:g}, below `min_scale` {self.settings.min_scale:g}")

    # --- checkpoints --------------------------------------------------------------------------------------------------

    @override
    def state_dict(self) -> dict[str, Any]:
        self._end_manual_steps()
        self._read_outcomes()
        return {
            "precision": self.precision,
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "fell_back_from": self.fell_back_from,
            **self._skips.state_dict(),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "scale" in state_dict:  # the state of Lightning's plugin is that of its scaler
            state_dict = {"scaler": state_dict}
        self._skips.load_state_dict(state_dict)
        before = state_dict.get("fell_back_from")
        if before is not None and before == self.precision:
            assert self._trainer is not None
            self.fell_back_from = before
            self._use(state_dict["precision"], self._trainer.strategy.root_device.type)
        if self.scaler is not None and state_dict.get("scaler"):
            self.scaler.load_state_dict(state_dict["scaler"])

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.scaler is not None:  # to resume with Lightning's plugin
            checkpoint[self.scaler_key] = self.scaler.state_dict()

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if type(self).__qualname__ in checkpoint:
            return
        for key in SCALER_KEYS:
            if checkpoint.get(key):
                self.load_state_dict(checkpoint[key])
                return
