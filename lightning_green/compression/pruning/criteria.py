"""How much a weight matters: a score for every weight, the larger the more worth keeping."""

from __future__ import annotations

import torch
from torch import Tensor

CRITERIA = ("magnitude", "gradient", "movement", "random")


def magnitude_scores(weight: Tensor) -> Tensor:
    """Return ``|w|``; Han et al., "Learning both Weights and Connections" (arXiv 1506.02626)."""
    return weight.detach().abs()


def gradient_scores(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return ``|w * dL/dw|``: by how much, to first order, the loss changes without it (arXiv 1611.06440)."""
    return (weight.detach() * gradient).abs()


def random_scores(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Return uniform numbers in [0, 1); drawn on the CPU, so that every device and every rank gets the same."""
    return torch.rand(weight.shape, generator=generator).to(weight.device)


@torch.no_grad()
def accumulate_movement_(scores: list[Tensor], weights: list[Tensor], gradients: list[Tensor]) -> None:
    """Add ``-w * dL/dw`` of one step to the scores, in place: weights that move away from zero gain.

    Equation 4 of Sanh et al., "Movement Pruning" (arXiv 2005.07683), with the learning rate left out. A weight that is
    masked stays zero here and keeps its score; the paper lets it come back through a straight-through estimator.
    """
    torch._foreach_addcmul_(scores, weights, gradients, value=-1.0)
