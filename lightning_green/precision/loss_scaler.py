"""A loss scaler that unscales and clips in one pass, and says whether a step was skipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.amp.grad_scaler import OptState
from torch.optim import Optimizer
from typing_extensions import override

from lightning_green.precision.gradients import clip_factor, plain_gradients, total_norm


class ScalerRounds:
    """What our scalers add to torch's: several optimizers and several steps of one in a round, outcomes, clipping.

    A round is everything between two calls of ``update``.
    """

    _per_optimizer_states: Any
    _scale: Tensor | None
    outcome: Tensor | None = None
    """After ``update``: above zero on a round with a step that was skipped. On the device, not read."""

    _found: Sequence[Tensor] = ()
    """What the steps since the last ``update`` found."""

    def is_unscaled(self, optimizer: Optimizer) -> bool:
        """Return whether this optimizer's gradients of this round are unscaled already."""
        return bool(self._per_optimizer_states[id(optimizer)]["stage"] is OptState.UNSCALED)

    @property
    def has_steps(self) -> bool:
        """Whether a step was taken since the last ``update``."""
        return bool(self._found)

    def unscale_(self, optimizer: Optimizer) -> None:
        """Unscale, also where the optimizer has stepped in this round, and where it has no gradients or no loss yet."""
        if self._scale is None:
            return  # nothing was scaled; `step` says what to do
        if self._per_optimizer_states[id(optimizer)]["stage"] is OptState.STEPPED:
            del self._per_optimizer_states[id(optimizer)]  # its finding is kept in `_found`
        super().unscale_(optimizer)  # type: ignore[misc]
        found = self._per_optimizer_states[id(optimizer)]["found_inf_per_device"]
        if not found:  # torch asserts here; an optimizer without gradients has nothing that could overflow
            found[self._scale.device] = torch.zeros((), device=self._scale.device)

    def forget(self, optimizer: Optimizer) -> None:
        """Take this optimizer's gradients as never seen: no step follows."""
        self._per_optimizer_states.pop(id(optimizer), None)

    @torch.no_grad()
    def unscale_and_clip_(self, optimizer: Optimizer, max_norm: float) -> bool:
        """Unscale and clip by norm: one pass that reads, one that writes. False where the gradients are not plain.

        A norm that is not finite is an overflow. Where the optimizer is fused, its kernel does the multiplication.
        """
        gradients = plain_gradients(optimizer)
        if gradients is None or self._scale is None or self.is_unscaled(optimizer):
            return False
        state = self._per_optimizer_states[id(optimizer)]
        inverse = self._scale.double().reciprocal().float().to(gradients[0].device)
        norm = total_norm(gradients)
        factor = inverse * clip_factor(norm * inverse, max_norm)
        state["found_inf_per_device"] = {norm.device: (~torch.isfinite(norm)).float()}
        state["stage"] = OptState.UNSCALED
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            optimizer.grad_scale = factor.reciprocal()  # type: ignore[attr-defined]
        else:
            torch._foreach_mul_(gradients, factor)
        return True

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """Step where nothing overflowed, and keep the finding for ``update``."""
        if self._per_optimizer_states[id(optimizer)]["stage"] is OptState.STEPPED:
            self.unscale_(optimizer)
        if self._scale is None:
            raise RuntimeError(
                "The optimizer steps before any loss was scaled; with manual optimization call "
                "`self.manual_backward(loss)`, not `loss.backward()`."
            )
        result = super().step(optimizer, *args, **kwargs)  # type: ignore[misc]
        self._found = [*self._found, *self._per_optimizer_states[id(optimizer)]["found_inf_per_device"].values()]
        return result

    def update(self, new_scale: Any = None) -> None:
        """End the round: change the scale once, whatever the number of optimizers and steps."""
        found, self._found = self._found, ()
        if len(found) == 1 and len(self._per_optimizer_states) == 1:
            self.outcome = found[0] if found[0].dim() == 0 else found[0].reshape(())
        elif found:
            assert self._scale is not None
            self.outcome = torch.stack([value.reshape(()).to(self._scale.device) for value in found]).sum()
            for state in self._per_optimizer_states.values():
                state["found_inf_per_device"] = {}
            key = next(iter(self._per_optimizer_states))
            self._per_optimizer_states[key]["found_inf_per_device"] = {self.outcome.device: self.outcome.clone()}
        super().update(new_scale)  # type: ignore[misc]


class LossScaler(ScalerRounds, GradScaler):
    """``torch.amp.GradScaler`` with rounds; gradients that are plain are not sorted by device and type first."""

    @override
    def _unscale_grads_(
        self, optimizer: Optimizer, inv_scale: Tensor, found_inf: Tensor, allow_fp16: bool
    ) -> dict[torch.device, Tensor]:
        gradients = plain_gradients(optimizer)
        if gradients is None or gradients[0].device != found_inf.device:
            return super()._unscale_grads_(optimizer, inv_scale, found_inf, allow_fp16)
        with torch.no_grad():
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, found_inf, inv_scale)
        return {found_inf.device: found_inf}
