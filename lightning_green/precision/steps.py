"""What both precision plugins share: the choice, the steps that are skipped, the fallback, and the state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.precision.precision import Precision
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from typing_extensions import override

from lightning_green._lightning import precision as _lightning
from lightning_green._lightning.loggers import logging_step, should_log
from lightning_green.precision.choice import LightningName, choose_precision, device_support
from lightning_green.precision.clipping import GreenClipping
from lightning_green.precision.compiled import backward_without_autocast
from lightning_green.precision.keep_fp32 import find_modules, keep_in_float32
from lightning_green.precision.nonfinite import first_nonfinite

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

FALLBACKS = ("auto", "bf16", "fp32", "none")
REQUESTS = ("auto", "bf16", "fp16", "fp32")
SCALER_KEYS = (
    "MixedPrecision",
    "FSDPPrecision",
    "GreenMixedPrecision",
    "GreenFSDPPrecision",
    "native_amp_scaling_state",
)


class GreenSteps(GreenClipping, ABC):
    """The part of the plugins that does not depend on the strategy; see :class:`GreenMixedPrecision` for arguments."""

    scaler_key = ""
    """The key under which Lightning's own plugin of this kind keeps the state of its scaler."""

    def _configure(
        self,
        precision: str,
        keep_fp32: Sequence[str | type[nn.Module]],
        fallback: str,
        max_consecutive_skips: int,
        min_scale: float,
        find_nonfinite: bool,
        scaling: dict[str, Any],
    ) -> None:
        if precision not in REQUESTS:
            raise ValueError(f"`precision` should be one of {', '.join(map(repr, REQUESTS))}, got {precision!r}.")
        if fallback not in FALLBACKS:
            raise ValueError(f"`fallback` should be one of {', '.join(map(repr, FALLBACKS))}, got {fallback!r}.")
        if isinstance(keep_fp32, str):
            raise ValueError(
                f"`keep_fp32` should be a list of names or types, got {keep_fp32!r}; write [{keep_fp32!r}]."
            )
        if max_consecutive_skips < 1:
            raise ValueError(f"`max_consecutive_skips` should be 1 or more, got {max_consecutive_skips!r}.")
        if not scaling["init_scale"] >= min_scale > 0:
            raise ValueError(
                f"`min_scale` should be above 0 and at most `init_scale` ({scaling['init_scale']!r}), got "
                f"{min_scale!r}."
            )
        self.requested, self.keep_fp32, self.fallback = precision, list(keep_fp32), fallback
        self.max_consecutive_skips, self.min_scale = max_consecutive_skips, min_scale
        self.find_nonfinite, self._scaling = find_nonfinite, scaling
        self.skipped_steps, self.consecutive_skips = 0, 0
        self.fell_back_from: str | None = None
        self._debts: dict[int, int] = {}
        self._unread: list[tuple[Tensor, Any]] = []
        self._handles: list[RemovableHandle] = []
        self._undo: dict[str, Callable[[], None]] = {}
        self._trainer: pl.Trainer | None = None
        self._batch: Any = None

    # --- what a strategy has to say -----------------------------------------------------------------------------------

    @abstractmethod
    def _use(self, name: LightningName, device_type: str) -> None:
        """Take ``name`` as the precision from here on."""

    # --- setting up ---------------------------------------------------------------------------------------------------

    @override
    def convert_module(self, module: nn.Module) -> nn.Module:
        assert isinstance(module, pl.LightningModule)
        self._trainer = module.trainer
        device = self._trainer.strategy.root_device
        if self.fell_back_from is None:
            name, why = choose_precision(self.requested, device_support(device))
            self._use(name, device.type)
            if self.requested == "auto" or "though" in why:
                rank_zero_info(f"{type(self).__name__}: {name}, because {why}.")
        for handle in self._handles:
            handle.remove()
        kept = find_modules(module, self.keep_fp32)
        self._handles = keep_in_float32(list(kept.values()), device.type)
        if kept and "autocast" not in self._undo:
            self._undo["autocast"] = backward_without_autocast()
        return module

    @override
    def connect(
        self, model: nn.Module, optimizers: list[Optimizer], lr_schedulers: list[Any]
    ) -> tuple[nn.Module, list[Optimizer], list[Any]]:
        assert self._trainer is not None
        if self.scaler is not None and any(isinstance(optimizer, LBFGS) for optimizer in optimizers):
            if self.requested == "fp16":
                raise ValueError(
                    "LBFGS evaluates the loss several times a step, which loss scaling does not allow; use "
                    "precision='bf16' or 'fp32', or another optimizer."
                )
            self._use("32-true", self._trainer.strategy.root_device.type)
        if "schedulers" not in self._undo:
            self._undo["schedulers"] = _lightning.hold_schedulers(self._trainer, self._held)
        return model, optimizers, lr_schedulers

    @override
    def teardown(self) -> None:
        while self._undo:
            self._undo.popitem()[1]()
        self._batch = None
        super().teardown()

    # --- steps --------------------------------------------------------------------------------------------------------

    @override
    def convert_input(self, data: Any) -> Any:
        if self.find_nonfinite:
            self._batch = data
        return super().convert_input(data)

    @override
    def pre_backward(self, tensor: Tensor, module: pl.LightningModule) -> Tensor:  # type: ignore[override]
        if self.find_nonfinite and self._batch is not None and not bool(torch.isfinite(tensor).all()):
            self._locate(module)
        if _lightning.has_hook(module, "on_before_backward"):
            return super().pre_backward(tensor, module)
        return tensor if self.scaler is None else self.scaler.scale(tensor)

    @override
    def post_backward(self, tensor: Tensor, module: pl.LightningModule) -> Tensor:  # type: ignore[override]
        if _lightning.has_hook(module, "on_after_backward"):
            return super().post_backward(tensor, module)
        return tensor.detach()

    @override
    def backward(  # type: ignore[override]
        self, tensor: Tensor, model: pl.LightningModule, optimizer: Any, *args: Any, **kwargs: Any
    ) -> None:
        kind = tensor.device.type
        if not torch.is_autocast_enabled(kind):
            super().backward(tensor, model, optimizer, *args, **kwargs)
            return
        # manual optimization runs backward inside `training_step`, and autocast would lower float32 modules' gradients
        with torch.autocast(kind, enabled=False):
            super().backward(tensor, model, optimizer, *args, **kwargs)

    def _locate(self, module: pl.LightningModule) -> None:
        trainer, batch = module.trainer, self._batch
        batch = trainer.strategy.batch_to_device(module.on_before_batch_transfer(batch, dataloader_idx=0))
        index = trainer.fit_loop.batch_idx

        def again() -> None:
            with self.forward_context():
                args = (batch, index) if _lightning.takes_batch_idx(module) else (batch,)
                module.training_step(*args)

        where = first_nonfinite(module, again)
        self.find_nonfinite, self._batch = False, None  # one report: what comes after a NaN is NaN
        rank_zero_warn(f"The loss is not finite at step {trainer.global_step}: {where}.")
        self._ledger("nonfinite_loss", where)

    @override
    def optimizer_step(  # type: ignore[override]
        self, optimizer: Any, model: pl.LightningModule, closure: Callable[[], Any], **kwargs: Any
    ) -> Any:
        scaler = self.scaler
        if scaler is None:
            try:
                return Precision.optimizer_step(self, optimizer, model=model, closure=closure, **kwargs)
            finally:
                optimizer.__dict__.pop("grad_scale", None)
        if isinstance(optimizer, LBFGS):
            raise ValueError("LBFGS does not go with loss scaling; use precision='bf16' or 'fp32'.")
        if self._unread:
            self._read_outcomes()
            if self.scaler is None:  # what was read moved the run to another precision
                return self.optimizer_step(optimizer, model, closure, **kwargs)
        result = closure()
        if result is None and model.automatic_optimization:  # `training_step` returned None: no backward
            self._after_closure(model, optimizer)
            scaler.forget(optimizer)
            return result
        trainer = model.trainer
        self._prepare_gradients(optimizer, model, scaler)
        try:
            result = scaler.step(optimizer, **kwargs)
        finally:
            optimizer.__dict__.pop("grad_scale", None)
        if model.automatic_optimization:
            self._end_round(late=_lightning.handles_unscaling(optimizer) and self._on_cuda())
            if should_log(trainer):
                self._log(trainer)
        return result

    # --- rounds: what was skipped -------------------------------------------------------------------------------------

    def _on_cuda(self) -> bool:
        return self._trainer is not None and self._trainer.strategy.root_device.type == "cuda"

    def _end_round(self, late: bool = False) -> None:
        """Change the scale, and note or read whether the step was skipped.

        A fused optimizer on CUDA skips on the device. Reading that now would make the host wait for the device, so it
        is read when the next step begins; the scheduler is then held one step later, at the same steps in every run.
        """
        self.scaler.update()
        outcome = self.scaler.outcome
        if late and outcome.device.type == "cuda":
            host = torch.empty((), dtype=outcome.dtype, pin_memory=True)
            host.copy_(outcome, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._unread.append((host, event))
        else:
            self._unread.append((outcome, None))
            if not late:
                self._read_outcomes()

    def _end_manual_round(self) -> None:
        if self.scaler is not None and self.scaler.has_steps:
            self._end_round()
            if self._trainer is not None and should_log(self._trainer):
                self._log(self._trainer)

    def _read_outcomes(self) -> None:
        unread, self._unread = self._unread, []
        for outcome, event in unread:
            if event is not None:
                event.synchronize()
            if not float(outcome) > 0:
                self.consecutive_skips = 0
                continue
            self.skipped_steps += 1
            self.consecutive_skips += 1
            assert self._trainer is not None
            for index in range(len(self._trainer.strategy.lr_scheduler_configs)):
                self._debts[index] = self._debts.get(index, 0) + 1
            self._fall_back_if_due(self._trainer)

    @property
    def last_step_was_skipped(self) -> bool:
        """Whether the last optimizer step was skipped for an overflow; reads it from the device where needed."""
        self._read_outcomes()
        return self.consecutive_skips > 0

    def _held(self, index: int, frequency: int) -> bool:
        """Return whether a scheduler that is due stays where it is, for steps that were skipped."""
        if self._debts.get(index, 0) < frequency:
            return False
        self._debts[index] -= frequency
        return True

    def _fall_back_if_due(self, trainer: pl.Trainer) -> None:
        if self.fallback == "none" or self.scaler is None:
            return
        scale = float(self.scaler.get_scale())
        if self.consecutive_skips >= self.max_consecutive_skips:
            why = f"{self.consecutive_skips} steps in a row overflowed"
        elif scale < self.min_scale:
            why = f"the loss scale fell to {scale:g}, under `min_scale` {self.min_scale:g}"
        else:
            return
        device = trainer.strategy.root_device
        support = device_support(device)
        to: LightningName = "32-true"
        if self.fallback == "bf16" or (self.fallback == "auto" and support.autocast and support.bf16):
            to = "bf16-mixed"
        self.fell_back_from = str(self.precision)
        self._use(to, device.type)
        rank_zero_warn(f"{type(self).__name__}: {why}, so training goes on in {to} instead of {self.fell_back_from}.")
        self._ledger("precision_fallback", why, before=self.fell_back_from, after=to, skipped_steps=self.skipped_steps)

    # --- records ------------------------------------------------------------------------------------------------------

    def _ledger(self, event: str, reason: str, **fields: Any) -> None:
        for callback in self._trainer.callbacks if self._trainer is not None else ():  # type: ignore[attr-defined]
            run = getattr(callback, "green_run", None)
            if run is not None:
                run.record(event, reason, **fields)
                return

    def _log(self, trainer: pl.Trainer) -> None:
        scale = 1.0 if self.scaler is None else float(self.scaler.get_scale())
        metrics = {"precision/loss_scale": scale, "precision/skipped_steps": float(self.skipped_steps)}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=logging_step(trainer))

    @override
    def state_dict(self) -> dict[str, Any]:
        self._end_manual_round()
        self._read_outcomes()
        return {
            "precision": self.precision,
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "skipped_steps": self.skipped_steps,
            "consecutive_skips": self.consecutive_skips,
            "fell_back_from": self.fell_back_from,
            "schedule_debts": dict(self._debts),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "scale" in state_dict:  # Lightning's own plugin: its scaler's state and nothing else
            state_dict = {"scaler": state_dict}
        self.skipped_steps = int(state_dict.get("skipped_steps", 0))
        self.consecutive_skips = int(state_dict.get("consecutive_skips", 0))
        self._debts = {int(index): int(debt) for index, debt in state_dict.get("schedule_debts", {}).items()}
        before = state_dict.get("fell_back_from")
        if before is not None and before == self.precision:
            assert self._trainer is not None
            self.fell_back_from = before
            self._use(state_dict["precision"], self._trainer.strategy.root_device.type)
        if self.scaler is not None and state_dict.get("scaler"):
            self.scaler.load_state_dict(state_dict["scaler"])

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.scaler is not None:  # for a run that goes on with Lightning's own plugin
            checkpoint[self.scaler_key] = self.scaler.state_dict()

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if type(self).__qualname__ not in checkpoint:
            for key in SCALER_KEYS:
                if checkpoint.get(key):
                    self.load_state_dict(checkpoint[key])
                    return
