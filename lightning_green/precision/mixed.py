"""Mixed precision on one device and under DDP."""

from __future__ import annotations

import functools
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.nn import functional
from typing_extensions import override

from lightning_green._lightning.loops import should_accumulate
from lightning_green.precision.choice import NAMES, LightningName
from lightning_green.precision.loss_scaler import LossScaler
from lightning_green.precision.steps import GreenSteps


@functools.cache
def cache_knows_no_grad() -> bool:
    """Return whether torch's autocast cache keeps what was cast under ``no_grad`` from a forward with gradients.

    Where it does not, a teacher's forward would take the gradient from a weight that it shares; the cache stays off.
    """
    weight = torch.ones(1, 1, requires_grad=True)  # a layer would draw from the random generator of the training
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=True):
        with torch.no_grad():
            functional.linear(torch.zeros(1, 1), weight)
        output = functional.linear(torch.zeros(1, 1), weight)
    gradient = torch.autograd.grad(output.float().sum(), weight, allow_unused=True)[0]
    return gradient is not None


class GreenMixedPrecision(GreenSteps, MixedPrecision):
    r"""Mixed precision that takes the best format of the device, and never loses a step silently.

    ``Trainer(plugins=[GreenMixedPrecision()])`` takes bfloat16 where the device has it in hardware, else float16 with
    loss scaling where that is fast, else float32. An fp16 step that overflows is skipped, counted and logged
    (``precision/loss_scale``, ``precision/skipped_steps``), and a learning-rate scheduler that advances by steps does
    not advance for it; ``trainer.global_step`` does, as with Lightning's own plugin: it counts attempts. With a fused
    optimizer on CUDA the scheduler is held one step later, so that the host need not wait for the device.

    Args:
        precision: ``"auto"``, ``"bf16"``, ``"fp16"`` or ``"fp32"``.
        keep_fp32: Modules that compute in float32, by shell patterns of their names or by types.
        cache: Keep the low-precision copies of the weights from one use to the next, and over the batches of an
            accumulation window. Off where the installed torch mixes up copies made under ``no_grad``.
        fallback: Where a run goes that only overflows: ``"auto"`` (bf16 where it is in hardware, else fp32),
            ``"bf16"``, ``"fp32"`` or ``"none"``.
        max_consecutive_skips: So many skipped steps in a row are too many.
        min_scale: A loss scale under this is too small.
        find_nonfinite: When a loss is not finite, run the batch again and name the first module whose output was not.
            The check reads the loss at each step, which on a GPU makes the host wait.
        init_scale: Where the loss scale begins.
        growth_interval: So many good steps double it.

    Attributes:
        skipped_steps: Optimizer steps that were skipped, over all restarts.
        fell_back_from: Lightning's name of the precision that was left, or None.

    Raises:
        ValueError: If an argument makes no sense, a pattern matches nothing, or the device cannot do what was asked.

    Example::

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
        scaling = {"init_scale": float(init_scale), "growth_interval": int(growth_interval)}
        self._configure(precision, keep_fp32, fallback, max_consecutive_skips, min_scale, find_nonfinite, scaling)
        self.cache = cache and cache_knows_no_grad()
        self._holds_cache = False
        self._weights: list[nn.Parameter] = []
        self._versions: list[int] = []
        # the device is not known before `convert_module`; until then Lightning shows this
        self.precision = NAMES.get(precision, "32-true")
        self.device, self.scaler = "cpu", None

    @override
    def _use(self, name: LightningName, device_type: str) -> None:
        self._release_cache()
        self.precision, self.device = name, device_type
        self.scaler = LossScaler(device_type, **self._scaling) if name == "16-mixed" else None

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
        self._end_manual_round()
        if self.cache:
            self._hold_cache()
        with self.forward_context():
            yield
        self._end_manual_round()

    @override
    @contextmanager
    def val_step_context(self) -> Generator[None, None, None]:
        self._release_cache()  # a callback may have put other weights in for the evaluation
        with self.forward_context():
            yield

    def _hold_cache(self) -> None:
        """Keep the casts of an accumulation window's first batch for the others: the weights are the same.

        Autocast empties its cache when its outermost context ends; one more level of nesting keeps it.
        """
        if self._holds_cache:
            if [weight._version for weight in self._weights] == self._versions:
                return
            self._release_cache()
        trainer = self._trainer
        if self.precision == "32-true" or trainer is None:
            return
        module = trainer.lightning_module
        if trainer.accumulate_grad_batches < 2 or not module.automatic_optimization:
            return
        if should_accumulate(trainer):
            torch.autocast_increment_nesting()
            self._holds_cache, self._weights = True, list(module.parameters())
            self._versions = [weight._version for weight in self._weights]

    def _release_cache(self) -> None:
        if self._holds_cache:
            torch.autocast_decrement_nesting()
            torch.clear_autocast_cache()
            self._holds_cache, self._weights = False, []

    @override
    def optimizer_step(  # type: ignore[override]
        self, optimizer: Any, model: Any, closure: Any, **kwargs: Any
    ) -> Any:
        try:
            return super().optimizer_step(optimizer, model, closure, **kwargs)
        finally:
            self._release_cache()
            torch.clear_autocast_cache()  # a manual step changes the weights in the middle of a `training_step`

    @override
    def teardown(self) -> None:
        self._release_cache()
        super().teardown()
