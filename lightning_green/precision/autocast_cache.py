"""Reuse of the low-precision copies that autocast makes of the weights."""

from __future__ import annotations

import functools

import torch
from torch import nn
from torch.nn import functional


@functools.cache
def autocast_cache_is_safe() -> bool:
    """Return whether a weight that was cast under ``no_grad`` still gets its gradient in a later forward pass.

    In older PyTorch releases, the autocast cache returns the copy that was made without gradients. The forward pass of
    a teacher would then remove the gradients of the weights that it shares with the student.
    """
    weight = torch.ones(1, 1, requires_grad=True)  # `nn.Linear` would use the random generator of the training
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=True):
        with torch.no_grad():
            functional.linear(torch.zeros(1, 1), weight)
        output = functional.linear(torch.zeros(1, 1), weight)
    gradient = torch.autograd.grad(output.float().sum(), weight, allow_unused=True)[0]
    return gradient is not None


class WindowCache:
    """Keep the autocast cache over the batches of an accumulation window.

    Autocast clears its cache at the end of the outermost context. One more level of nesting keeps it.
    """

    def __init__(self) -> None:
        self._weights: list[nn.Parameter] = []
        self._versions: list[int] = []

    def release_if_changed(self) -> None:
        """Clear the cache if a weight changed in place since ``keep``."""
        if [weight._version for weight in self._weights] != self._versions:
            self.release()

    def keep(self, module: nn.Module) -> None:
        """Keep the copies of the weights of ``module`` that are made from now on, until ``release``."""
        if not self._weights:
            self._weights = list(module.parameters())
            self._versions = [weight._version for weight in self._weights]
            if self._weights:
                torch.autocast_increment_nesting()

    def release(self) -> None:
        """Clear the cache."""
        if self._weights:
            torch.autocast_decrement_nesting()
            torch.clear_autocast_cache()
            self._weights, self._versions = [], []
