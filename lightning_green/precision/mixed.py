"""Mixed precision on one device and with DDP."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from typing_extensions import override

from lightning_green._lightning.loops import should_accumulate
from lightning_green._lightning.precision import takes_batch_idx
from lightning_green.ledger.events import Event, NonfiniteLoss, PrecisionFallback
from lightning_green.precision.autocast_cache import WindowCache, autocast_cache_is_safe
from lightning_green.precision.choice import NAMES, LightningName, device_support
from lightning_green.precision.loss_scaler import LossScaler
from lightning_green.precision.nonfinite import first_nonfinite
from lightning_green.precision.plugin import GreenPrecision
from lightning_green.precision.settings import PrecisionSettings
from lightning_green.run.session import Session


class GreenMixedPrecision(GreenPrecision, MixedPrecision):
    r"""Mixed precision in the best format of the device, which counts skipped steps and reacts to repeated overflows.

    ``Trainer(plugins=[GreenMixedPrecision()])`` uses bfloat16 if the device has it in hardware, otherwise float16 with
    loss scaling if that is fast, otherwise float32. An fp16 step that overflows is skipped, counted and logged
    (``precision/loss_scale``, ``precision/skipped_steps``). A learning-rate scheduler with ``interval="step"`` skips
    the same step. ``trainer.global_step`` counts attempts, as with Lightning's plugin. With a fused optimizer on CUDA,
    the scheduler skips one step later, so that the host does not wait for the device.

    Args:
        precision: ``"auto"``, ``"bf16"``, ``"fp16"`` or ``"fp32"``.
        keep_fp32: Modules that compute in float32, as shell patterns of their names or as types.
        cache: Cast each weight once per accumulation window instead of at each use. Ignored if the installed PyTorch
            confuses copies made under ``no_grad`` with others.
        fallback: Precision after repeated overflows: ``"auto"`` (bf16 if in hardware, otherwise fp32), ``"bf16"``,
            ``"fp32"``, or ``"none"`` to continue in fp16.
        max_consecutive_skips: Consecutive skipped steps before falling back.
        min_scale: Smallest loss scale before falling back.
        find_nonfinite: If a loss is not finite, run the batch again and report the first module with a non-finite
            output. The check reads every loss, so the host waits for the GPU.
        init_scale: Initial loss scale.
        growth_interval: Consecutive successful steps before the loss scale doubles.

    Attributes:
        skipped_steps: Optimizer steps that were skipped, over all restarts.
        fell_back_from: Lightning's name of the precision before the fallback, or None.

    Raises:
        ValueError: If an argument is invalid, a pattern matches no module, or the device does not support the format.

    Examples:
        >>> from lightning_green import GreenMixedPrecision
        >>> import lightning.pytorch as pl
        >>> trainer = pl.Trainer(plugins=[GreenMixedPrecision(keep_fp32=["head"])], accelerator="cpu", logger=False)

    """

    scaler_key = "MixedPrecision"

    def __init__(
        self,
        precision: str = "auto",
        keep_fp32: Sequence[str | type[nn.Module]] = (),
        cache: bool = True,
        fallback: str = "auto",
        max_consecutive_skips: int = 16,
        min_scale: float = 1.0,
        find_nonfinite: bool = False,
        init_scale: float = 65536.0,
        growth_interval: int = 2000,
    ) -> None:
        GreenPrecision.__init__(
            self,
            PrecisionSettings(
                precision, keep_fp32, max_consecutive_skips, min_scale, init_scale, growth_interval, fallback
            ),
        )
        self.cache = cache and autocast_cache_is_safe()
        self._window = WindowCache()
        self.find_nonfinite = find_nonfinite
        self._batch: Any = None
        # Lightning reads these before `convert_module`, which knows the device
        self.precision = NAMES.get(precision, "32-true")
        self.device = "cpu"

    @override
    def _use(self, name: LightningName, device_type: str) -> None:
        self._window.release()
        self.precision, self.device, self.scaler = name, device_type, None
        if name == "16-mixed":
            settings = self.settings
            self.scaler = LossScaler(
                device_type, init_scale=settings.init_scale, growth_interval=settings.growth_interval
            )

    @override
    def _fall_back(self, reason: str) -> None:
        fallback = self.settings.fallback
        if fallback == "none":
            return
        assert self._trainer is not None
        device = self._trainer.strategy.root_device
        if fallback == "auto":
            support = device_support(device)
            fallback = "bf16" if support.autocast and support.bf16 else "fp32"
        for optimizer in self._trainer.optimizers:
            self.scaler.release(optimizer)
        before, after = self.precision, NAMES[fallback]
        self.fell_back_from = before
        self._use(after, device.type)
        rank_zero_warn(f"{type(self).__name__}: {reason}, so training continues in {after} instead of {before}.")
        self._record(PrecisionFallback(reason=reason, before=before, after=after, skipped_steps=self.skipped_steps))

    @override
    def autocast_context_manager(self) -> torch.autocast:
        dtype = torch.bfloat16 if self.precision == "bf16-mixed" else torch.half
        return torch.autocast(self.device, dtype=dtype, cache_enabled=self.cache)

    @override
    def forward_context(self) -> AbstractContextManager[Any]:  # type: ignore[override]
        return nullcontext() if self.precision == "32-true" else self.autocast_context_manager()

    @override
    @contextmanager
    def train_step_context(self) -> Generator[None, None, None]:
        self._window.release_if_changed()
        if self._keeps_cache():
            assert self._trainer is not None
            self._window.keep(self._trainer.lightning_module)
        with super().train_step_context():
            yield

    def _keeps_cache(self) -> bool:
        """Return whether the weights stay the same after the current batch."""
        trainer = self._trainer
        if not self.cache or self.precision == "32-true" or trainer is None or trainer.accumulate_grad_batches < 2:
            return False
        return trainer.lightning_module.automatic_optimization and should_accumulate(trainer)

    @override
    @contextmanager
    def val_step_context(self) -> Generator[None, None, None]:
        self._window.release()  # a callback may have exchanged the weights for the evaluation
        with self.forward_context():
            yield

    @override
    def optimizer_step(  # type: ignore[override]
        self, optimizer: Any, model: pl.LightningModule, closure: Callable[[], Any], **kwargs: Any
    ) -> Any:
        try:
            return super().optimizer_step(optimizer, model, closure, **kwargs)
        finally:
            self._window.release()

    # --- search for non-finite values ---------------------------------------------------------------------------------

    @override
    def convert_input(self, data: Any) -> Any:
        if self.find_nonfinite:
            self._batch = data
        return super().convert_input(data)

    @override
    def pre_backward(self, tensor: Tensor, module: pl.LightningModule) -> Tensor:  # type: ignore[override]
        if self.find_nonfinite and self._batch is not None and not bool(torch.isfinite(tensor).all()):
            self._report_nonfinite(module)
        return super().pre_backward(tensor, module)

    def _report_nonfinite(self, module: pl.LightningModule) -> None:
        trainer = module.trainer
        batch = trainer.strategy.batch_to_device(module.on_before_batch_transfer(self._batch, dataloader_idx=0))
        arguments = (batch, trainer.fit_loop.batch_idx) if takes_batch_idx(module) else (batch,)

        def forward() -> None:
            with self.forward_context():
                module.training_step(*arguments)

        finding = first_nonfinite(module, forward)
        self.find_nonfinite, self._batch = False, None  # report once, because every later loss is NaN too
        rank_zero_warn(f"The loss is not finite at step {trainer.global_step}: {finding}.")
        self._record(NonfiniteLoss(reason=finding))

    def _record(self, event: Event) -> None:
        """Append an event to the ledger if a callback of the suite keeps one."""
        for callback in self._trainer.callbacks if self._trainer is not None else ():  # type: ignore[attr-defined]
            session = getattr(callback, "session", None)
            if isinstance(session, Session):
                session.record(event)
                return

    @override
    def teardown(self) -> None:
        self._batch = None
        self._window.release()
        super().teardown()
