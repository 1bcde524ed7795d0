"""Mixed precision under FSDP."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.plugins.precision import FSDPPrecision
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.optim import Optimizer
from typing_extensions import override

from lightning_green.precision.choice import NAMES, LightningName
from lightning_green.precision.loss_scaler import ScalerRounds
from lightning_green.precision.steps import GreenSteps

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch.distributed.fsdp import MixedPrecision as TorchMixedPrecision


class ShardedLossScaler(ScalerRounds, ShardedGradScaler):
    """torch's scaler for sharded gradients with rounds; all ranks skip a step together."""


class GreenFSDPPrecision(GreenSteps, FSDPPrecision):
    """What :class:`GreenMixedPrecision` is, for ``FSDPStrategy``; clipping by norm works.

    ``Trainer(strategy=FSDPStrategy(), plugins=[GreenFSDPPrecision("bf16")])``.

    Args:
        precision: ``"auto"``, ``"bf16"``, ``"fp16"`` or ``"fp32"``.
        keep_fp32: Modules that compute in float32. With any, FSDP gathers and reduces everything in float32 and
            autocast lowers the rest, which doubles the traffic of the weights.
        max_consecutive_skips: So many skipped steps in a row are too many; they raise.
        min_scale: A loss scale under this is too small; it raises.
        init_scale: Where the loss scale begins.
        growth_interval: So many good steps double it.

    Raises:
        ValueError: If an argument makes no sense, a pattern matches nothing, or the device cannot do what was asked.
        RuntimeError: In a run that only overflows: FSDP takes its formats when it wraps the model, so none can follow.

    """

    scaler_key = "FSDPPrecision"
    _clips_alone = False

    def __init__(
        self,
        precision: str = "auto",
        keep_fp32: Sequence[str | type[nn.Module]] = (),
        max_consecutive_skips: int = 16,
        min_scale: float = 1.0,
        init_scale: float = 65536.0,
        growth_interval: int = 2000,
    ) -> None:
        scaling = {"init_scale": float(init_scale), "growth_interval": int(growth_interval)}
        self._configure(precision, keep_fp32, "none", max_consecutive_skips, min_scale, False, scaling)
        super().__init__(NAMES.get(precision, "32-true"))
        self.scaler = None
        self._device_type = "cuda"
        self._root: FullyShardedDataParallel | None = None

    @override
    def _use(self, name: LightningName, device_type: str) -> None:
        self.precision, self._device_type = name, device_type
        self.scaler = ShardedLossScaler(device_type, **self._scaling) if name == "16-mixed" else None

    @override
    def connect(
        self, model: nn.Module, optimizers: list[Optimizer], lr_schedulers: list[Any]
    ) -> tuple[nn.Module, list[Optimizer], list[Any]]:
        self._root = model if isinstance(model, FullyShardedDataParallel) else None
        return super().connect(model, optimizers, lr_schedulers)

    @property
    @override
    def mixed_precision_config(self) -> TorchMixedPrecision:
        from torch.distributed.fsdp import MixedPrecision as TorchMixedPrecision

        if self.keep_fp32:
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
    @contextmanager
    def train_step_context(self) -> Generator[None, None, None]:
        self._end_manual_round()
        with self.forward_context():
            yield
        self._end_manual_round()

    @override
    def clip_grad_by_norm(self, optimizer: Optimizer, clip_val: int | float) -> None:
        if self._root is None:
            raise MisconfigurationException(
                "Clipping by norm needs the whole model wrapped by FSDP; do not wrap parts of it in `configure_model`, "
                "or use gradient_clip_algorithm='value'."
            )
        self._root.clip_grad_norm_(float(clip_val))  # the norm over all ranks' shards

    @override
    def _fall_back_if_due(self, trainer: Any) -> None:
        scale = float(self.scaler.get_scale())
        if self.consecutive_skips >= self.max_consecutive_skips or scale < self.min_scale:
            raise RuntimeError(
                f"{self.consecutive_skips} steps in a row overflowed in fp16 (loss scale {scale:g}), and FSDP cannot "
                "change its format in a run: start again from the last checkpoint with GreenFSDPPrecision('bf16')."
            )
