"""Importance scores of weights. Weights with the lowest scores are pruned first."""

from __future__ import annotations

import torch
from torch import Tensor

CRITERIA = ("magnitude", "gradient", "movement", "random")


def magnitude_scores(weight: Tensor) -> Tensor:
    """Return ``|w|``; Han et al., "Learning both Weights and Connections" (arXiv 1506.02626)."""
    return weight.detach().abs()


def gradient_scores(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return ``|w * dL/dw|``, the first-order change of the loss without the weight (arXiv 1611.06440)."""
    return (weight.detach() * gradient).abs()


def random_scores(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Return uniform numbers in [0, 1), drawn on the CPU so that they are equal on all devices and ranks."""
    return torch.rand(weight.shape, generator=generator).to(weight.device)


@torch.no_grad()
def accumulate_movement_(scores: list[Tensor], weights: list[Tensor], gradients: list[Tensor]) -> None:
    """Add ``-w * dL/dw`` of one step to the scores in place. Scores of weights that move away from zero increase.

    Equation 4 of Sanh et al., "Movement Pruning" (arXiv 2005.07683), without the learning rate. A masked weight stays
    zero and keeps its score. In the paper it can be restored, through a straight-through estimator.
    """
    torch._foreach_addcmul_(scores, weights, gradients, value=-1.0)
