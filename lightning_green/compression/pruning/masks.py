"""Masks from scores: pure functions. A mask is a boolean tensor of the weight's shape, True where a weight is kept.

Weights are treated as a matrix of outputs x inputs, as in ``nn.Linear``. The inputs of a convolution are its input
channels and kernel positions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def unstructured_mask(scores: Tensor, sparsity: float) -> Tensor:
    """Return the mask that prunes the ``round(sparsity * n)`` weights with the lowest scores.

    Args:
        scores: Scores in any shape.
        sparsity: Fraction to prune, in [0, 1].

    """
    return global_masks({"": scores}, sparsity)[""]


def global_masks(scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Return masks that together prune the ``round(sparsity * n)`` weights with the lowest scores of all.

    Args:
        scores: Scores by parameter name, in any shapes on one device.
        sparsity: Fraction of all weights to prune, in [0, 1].

    """
    if not scores:
        return {}
    flat = torch.cat([s.detach().float().flatten() for s in scores.values()])
    keep = torch.ones_like(flat, dtype=torch.bool)
    # `topk` selects an exact number even if scores are equal; a threshold would not.
    keep[torch.topk(flat, round(sparsity * flat.numel()), largest=False, sorted=False).indices] = False
    masks, start = {}, 0
    for name, score in scores.items():
        masks[name] = keep[start : start + score.numel()].view(score.shape)
        start += score.numel()
    return masks


def can_be_n_m(shape: torch.Size, m: int) -> bool:
    """Return whether the number of input channels of a weight of this shape is a multiple of ``m``."""
    return len(shape) >= 2 and shape[1] % m == 0


def n_m_mask(scores: Tensor, n: int, m: int) -> Tensor:
    """Return the mask that keeps the ``n`` highest of every ``m`` neighbors along the input channels (dimension 1).

    Sparse tensor cores execute this pattern: Mishra et al., "Accelerating Sparse Deep Neural Networks"
    (arXiv 2104.08378), which groups convolutions along their input channels too.

    Args:
        scores: Shape ``(outputs, inputs, ...)`` with ``inputs`` a multiple of ``m``.
        n: Number of weights to keep in a group.
        m: Size of a group.

    Raises:
        ValueError: If dimension 1 is not a multiple of ``m``.

    Examples:
        >>> n_m_mask(torch.tensor([[0.1, 0.9, 0.5, 0.2]]), 2, 4)
        tensor([[False,  True,  True, False]])

    """
    if not can_be_n_m(scores.shape, m):
        raise ValueError(f"`scores` should have a multiple of {m} in dimension 1, got shape {tuple(scores.shape)}.")
    groups = scores.detach().movedim(1, -1).contiguous()
    flat = groups.view(-1, m)
    keep = torch.zeros_like(flat, dtype=torch.bool)
    keep.scatter_(1, flat.topk(n, dim=1).indices, True)
    return keep.view(groups.shape).movedim(-1, 1).contiguous()


def block_mask(scores: Tensor, sparsity: float, rows: int, columns: int) -> Tensor:
    """Return the mask that prunes the ``round(sparsity * blocks)`` blocks with the lowest mean score.

    Args:
        scores: Shape ``(outputs, ...)``, treated as a matrix. Blocks at its edges may be smaller.
        sparsity: Fraction of blocks to prune, in [0, 1].
        rows: Outputs in a block.
        columns: Inputs in a block.

    Examples:
        >>> block_mask(torch.tensor([[1.0, 1, 5, 5], [1, 1, 5, 5]]), 0.5, 2, 2).int()
        tensor([[0, 0, 1, 1],
                [0, 0, 1, 1]], dtype=torch.int32)

    """
    matrix = scores.detach().float().reshape(scores.shape[0], -1)
    means = torch.nn.functional.avg_pool2d(matrix[None, None], (rows, columns), ceil_mode=True, count_include_pad=False)
    keep = unstructured_mask(means[0, 0], sparsity)
    whole = keep.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    return whole[: matrix.shape[0], : matrix.shape[1]].reshape(scores.shape)
