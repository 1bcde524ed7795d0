"""Dynamic sparse training: Evci et al., "Rigging the Lottery: Making All Tickets Winners" (RigL, arXiv 1911.11134)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def erdos_renyi_sparsities(shapes: Mapping[str, torch.Size], sparsity: float) -> dict[str, float]:
    """Return the sparsity of each layer for a given overall sparsity (Erdos-Renyi-Kernel, ERK).

    A layer's density is proportional to the sum of its dimensions over their product (section 3 of the paper);
    layers whose density would exceed 1 are dense, and the density of the others is recomputed.

    Args:
        shapes: Shape of each weight by name.
        sparsity: Fraction of all weights to prune, in [0, 1).

    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        budget = (1 - sparsity) * sum(sizes.values()) - sum(sizes[name] for name in dense)
        weight = sum(raw[name] * sizes[name] for name in shapes if name not in dense)
        factor = budget / weight if weight else 0.0
        over = {name for name in shapes if name not in dense and raw[name] * factor > 1}
        if not over:
            return {name: 0.0 if name in dense else 1 - raw[name] * factor for name in shapes}
        dense |= over


def drop_fraction(progress: float, initial: float = 0.3) -> float:
    """Return the fraction of the kept weights to replace: a cosine from ``initial`` to 0 (section 3 of the paper)."""
    return initial / 2 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def rigl_mask(weight: Tensor, mask: Tensor, gradient: Tensor, fraction: float) -> Tensor:
    """Return a mask with the same number of weights: the smallest are dropped, those with the largest gradients grow.

    Args:
        weight: Weight of any shape.
        mask: Current mask, in the same shape.
        gradient: Dense gradient of the loss, in the same shape.
        fraction: Fraction of the kept weights to replace, in [0, 1].

    """
    kept = int(mask.sum())
    count = min(int(fraction * kept), mask.numel() - kept)
    if count == 0:
        return mask.clone()
    infinity = float("inf")
    new = mask.flatten().clone()
    smallest = weight.detach().abs().float().masked_fill(~mask, infinity).flatten()
    new[torch.topk(smallest, count, largest=False, sorted=False).indices] = False
    # Unlike in the paper, a weight dropped in this update cannot grow in it, which would only reset its value.
    steepest = gradient.detach().abs().float().masked_fill(mask, -infinity).flatten()
    new[torch.topk(steepest, count, sorted=False).indices] = True
    return new.view(mask.shape)
