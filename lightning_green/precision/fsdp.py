"""Mixed precision with FSDP."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.plugins.precision import FSDPPrecision
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp import MixedPrecision as TorchMixedPrecision
from torch.optim import Optimizer
from typing_extensions import override

from lightning_green.precision.choice import NAMES, LightningName
from lightning_green.precision.loss_scaler import ShardedLossScaler
from lightning_green.precision.plugin import GreenPrecision
from lightning_green.precision.settings import PrecisionSettings


class GreenFSDPPrecision(GreenPrecision, FSDPPrecision):
    """``GreenMixedPrecision`` for ``FSDPStrategy``, with gradient clipping by norm.

    Args:
        precision: ``"auto"``, ``"bf16"``, ``"fp16"`` or ``"fp32"``.
        keep_fp32: Modules that compute in float32, as shell patterns of their names or as types. With any, FSDP gathers
            weights and reduces gradients in float32, which doubles the traffic, and autocast casts the other modules.
        max_consecutive_skips: Consecutive skipped steps before raising.
        min_scale: Smallest loss scale before raising.
        init_scale: Initial loss scale.
        growth_interval: Consecutive successful steps before the loss scale doubles.

    Raises:
        ValueError: If an argument is invalid, a pattern matches no module, or the device does not support the format.
        RuntimeError: During training, after repeated overflows. FSDP cannot change its formats during a run.

    Examples:
        >>> from lightning.pytorch.strategies import FSDPStrategy
        >>> import lightning.pytorch as pl
        >>> trainer = pl.Trainer(strategy=FSDPStrategy(), plugins=[GreenFSDPPrecision("bf16")])  # doctest: +SKIP

    """

    scaler_key = "FSDPPrecision"

    def __init__(
        self,
        precision: str = "auto",
        keep_fp32: Sequence[str | type[nn.Module]] = (),
        max_consecutive_skips: int = 16,
        min_scale: float = 1.0,
        init_scale: float = 65536.0,
        growth_interval: int = 2000,
    ) -> None:
        settings = PrecisionSettings(
            precision, keep_fp32, max_consecutive_skips, min_scale, init_scale, growth_interval
        )
        FSDPPrecision.__init__(self, NAMES.get(precision, "32-true"))
        GreenPrecision.__init__(self, settings)
        self._device_type = "cuda"
        self._root: FullyShardedDataParallel | None = None

    @override
    def _use(self, name: LightningName, device_type: str) -> None:
        self.precision, self._device_type, self.scaler = name, device_type, None
        if name == "16-mixed":
            settings = self.settings
            self.scaler = ShardedLossScaler(
                device_type, init_scale=settings.init_scale, growth_interval=settings.growth_interval
            )

    @override
    def _fall_back(self, reason: str) -> None:
        raise RuntimeError(
            f"{reason[0].upper()}{reason[1:]} in fp16 (loss scale {self.scaler.get_scale():g}). FSDP cannot change the "
            "precision during a run. Resume from the last checkpoint with GreenFSDPPrecision('bf16')."
        )

    @override
    def connect(
        self, model: nn.Module, optimizers: list[Optimizer], lr_schedulers: list[Any]
    ) -> tuple[nn.Module, list[Optimizer], list[Any]]:
        self._root = model if isinstance(model, FullyShardedDataParallel) else None
        return super().connect(model, optimizers, lr_schedulers)

    @property
    @override
    def mixed_precision_config(self) -> TorchMixedPrecision:
        if self.settings.keep_fp32:
            full = torch.float32
            return TorchMixedPrecision(param_dtype=full, reduce_dtype=full, buffer_dtype=full)
        return super().mixed_precision_config

    @override
    def forward_context(self) -> AbstractContextManager[Any]:
        if self.precision == "32-true":
            return nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16
        return torch.autocast(self._device_type, dtype=dtype)

    @override
    def clip_grad_by_norm(self, optimizer: Optimizer, clip_val: int | float) -> None:
        if self._root is None:
            raise MisconfigurationException(
                "Gradient clipping by norm requires that FSDP wraps the whole model. Do not wrap parts of it in "
                "`configure_model`, or use gradient_clip_algorithm='value'."
            )
        self._root.clip_grad_norm_(float(clip_val))  # the norm over the shards of all ranks
