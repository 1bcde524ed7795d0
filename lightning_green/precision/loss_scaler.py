"""Loss scalers that support several steps per update and report skipped steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.amp.grad_scaler import OptState
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.optim import Optimizer


class MultiStepScaling:
    """Extend a PyTorch gradient scaler to any number of optimizer steps between two updates.

    PyTorch's scalers raise if an optimizer steps twice before an update or steps without gradients. They do not report
    whether a step was skipped.
    """

    _per_optimizer_states: Any
    _scale: Tensor | None

    overflow: Tensor | None = None
    """Scalar on the device, set by ``update``. Above zero if a step since the previous update was skipped."""

    _found: tuple[Tensor, ...] = ()
    """Overflow indicators of the steps since the last update."""

    _stepped: frozenset[int] = frozenset()
    """Ids of the optimizers that stepped since the last loss was scaled."""

    @property
    def has_steps(self) -> bool:
        """Whether an optimizer stepped since the last update."""
        return bool(self._found)

    def has_stepped(self, optimizer: Optimizer) -> bool:
        """Return whether ``optimizer`` stepped since the last loss was scaled, so that it accumulates nothing."""
        return id(optimizer) in self._stepped

    def is_unscaled(self, optimizer: Optimizer) -> bool:
        """Return whether the current gradients of ``optimizer`` are already unscaled."""
        return bool(self._per_optimizer_states[id(optimizer)]["stage"] is OptState.UNSCALED)

    def scale(self, outputs: Any) -> Any:
        """Multiply ``outputs`` by the loss scale."""
        self._stepped = frozenset()
        return super().scale(outputs)  # type: ignore[misc]

    def unscale_(self, optimizer: Optimizer) -> None:
        """Unscale the gradients of ``optimizer``, again if it stepped since the last update."""
        if self._scale is None:
            return  # no loss was scaled yet, and `step` raises
        states, key = self._per_optimizer_states, id(optimizer)
        if states[key]["stage"] is OptState.STEPPED:
            del states[key]  # the indicator of that step is in `_found`
        super().unscale_(optimizer)  # type: ignore[misc]
        if not states[key]["found_inf_per_device"]:  # no gradients, for which PyTorch raises in `step`
            states[key]["found_inf_per_device"][self._scale.device] = torch.zeros((), device=self._scale.device)

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """Step ``optimizer`` unless its gradients overflowed.

        Raises:
            RuntimeError: If no loss was scaled.

        """
        if self._scale is None:
            raise RuntimeError(
                "The optimizer steps before any loss was scaled. With manual optimization, call "
                "`self.manual_backward(loss)` instead of `loss.backward()`."
            )
        if not self.is_unscaled(optimizer):
            self.unscale_(optimizer)
        result = super().step(optimizer, *args, **kwargs)  # type: ignore[misc]
        self._found += tuple(self._per_optimizer_states[id(optimizer)]["found_inf_per_device"].values())
        self._stepped |= {id(optimizer)}
        return result

    def discard(self, optimizer: Optimizer) -> None:
        """Forget that the gradients of ``optimizer`` were unscaled, because it does not step with them."""
        self._per_optimizer_states.pop(id(optimizer), None)

    def release(self, optimizer: Optimizer) -> None:
        """Unscale accumulated gradients of ``optimizer`` for a step without this scaler; remove them on an overflow.

        Gradients with which the optimizer stepped already do not change. Waits for the device.
        """
        if self._scale is None or self.has_stepped(optimizer):
            return
        if not self.is_unscaled(optimizer):
            self.unscale_(optimizer)
        if any(
            float(found) > 0 for found in self._per_optimizer_states[id(optimizer)]["found_inf_per_device"].values()
        ):
            optimizer.zero_grad()

    def rescale(self, optimizer: Optimizer, before: float) -> None:
        """Adapt accumulated gradients of ``optimizer`` to the scale after an update. Waits for the device.

        Args:
            optimizer: The optimizer.
            before: The scale before the update.

        """
        ratio = self.get_scale() / before  # type: ignore[attr-defined]
        for group in optimizer.param_groups if ratio != 1.0 else ():
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(ratio)

    def update(self, new_scale: Any = None) -> None:
        """Change the scale once, however many optimizers and steps there were since the last update."""
        if self._found:
            assert self._scale is not None
            device = self._scale.device
            self.overflow = torch.stack([found.reshape(()).to(device) for found in self._found]).sum()
            self._per_optimizer_states.clear()
            self._per_optimizer_states[0]["found_inf_per_device"] = {device: self.overflow}
            self._found = ()
        super().update(new_scale)  # type: ignore[misc]


class LossScaler(MultiStepScaling, GradScaler):
    """``torch.amp.GradScaler`` with several steps per update."""


class ShardedLossScaler(MultiStepScaling, ShardedGradScaler):
    """PyTorch's scaler for sharded gradients with several steps per update. All ranks skip a step together."""
