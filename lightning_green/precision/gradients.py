"""Clipping of gradients in as few passes as there can be."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer


def has_gradients(optimizer: Optimizer) -> bool:
    """Return whether any of an optimizer's parameters has a gradient."""
    return any(p.grad is not None for group in optimizer.param_groups for p in group["params"])


def plain_gradients(optimizer: Optimizer) -> list[Tensor] | None:
    """Return an optimizer's gradients, or None where they are not dense float32 tensors on one device."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not gradients:
        return None
    device = gradients[0].device
    for gradient in gradients:
        if (
            type(gradient) is not Tensor
            or gradient.dtype is not torch.float32
            or gradient.is_sparse
            or gradient.device != device
        ):
            return None
    return gradients


def clip_factor(norm: Tensor, max_norm: float) -> Tensor:
    """Return what gradients of this norm are multiplied by: ``min(1, max_norm / (norm + 1e-6))`` as torch has it."""
    return torch.clamp(max_norm / (norm + 1e-6), max=1.0)


@torch.no_grad()
def total_norm(gradients: list[Tensor]) -> Tensor:
    """Return the 2-norm of all gradients together, on their device."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2.0)))
    return norm


@torch.no_grad()
def clip_by_value_(gradients: list[Tensor], limit: float) -> None:
    """Limit every element to ``-limit`` and ``limit``.

    On a CPU that is one pass. torch has no kernel for many tensors that clamps at both ends, so on a GPU it is two,
    each of which takes all tensors at once.
    """
    if gradients[0].device.type == "cpu":
        for gradient in gradients:
            gradient.clamp_(-limit, limit)
    else:
        torch._foreach_clamp_min_(gradients, -limit)
        torch._foreach_clamp_max_(gradients, limit)
