"""Masks from scores: pure functions. A mask is a boolean tensor of the weight's shape, True where a weight is kept.

Weights are seen as a matrix of outputs x inputs, as in ``nn.Linear``: a convolution's kernel positions and input
    channels are its
inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def unstructured_mask(scores: Tensor, sparsity: float) -> Tensor:
    """Return the mask that drops exactly ``round(sparsity * n)`` weights, those with the lowest scores.

    Args:
        scores: Any shape.
        sparsity: Fraction to drop, in [0, 1].

    """
    return global_masks({"": scores}, sparsity)[""]


def global_masks(scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Return masks that together drop exactly ``round(sparsity * n)`` weights, those with the lowest scores of all.

    Args:
        scores: Scores by parameter name; any shapes, one device.
        sparsity: Fraction of all weights to drop, in [0, 1].

    """
    if not scores:
        return {}
    flat = torch.cat([s.detach().float().flatten() for s in scores.values()])
    keep = torch.ones_like(flat, dtype=torch.bool)
    # `topk` picks an exact number, also where scores are equal; a threshold would not.
    keep[torch.topk(flat, round(sparsity * flat.numel()), largest=False, sorted=False).indices] = False
    masks, start = {}, 0
    for name, score in scores.items():
        masks[name] = keep[start : start + score.numel()].view(score.shape)
        start += score.numel()
    return masks


def can_be_n_m(shape: torch.Size, m: int) -> bool:
    """Return whether the input channels of a weight of this shape come in whole groups of ``m``."""
    return len(shape) >= 2 and shape[1] % m == 0


def n_m_mask(scores: Tensor, n: int, m: int) -> Tensor:
    """Return the mask that keeps the ``n`` highest of every ``m`` neighbors along the input channels (dimension 1).

    This is the pattern that sparse tensor cores execute: Mishra et al., "Accelerating Sparse Deep Neural Networks"
    (arXiv 2104.08378), where a convolution is grouped along its input channels as well.

    Args:
        scores: Shape ``(outputs, inputs, ...)`` with ``inputs`` a multiple of ``m``.
        n: Weights kept in a group.
        m: Size of a group.

    Raises:
        ValueError: If dimension 1 is not a multiple of ``m``.

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
    """Return the mask that drops ``round(sparsity * blocks)`` whole blocks, those with the lowest mean score.

    Args:
        scores: Shape ``(outputs, ...)``, seen as a matrix; blocks at its edges may be smaller.
        sparsity: Fraction of blocks to drop, in [0, 1].
        rows: Outputs in a block.
        columns: Inputs in a block.

    >>> block_mask(torch.tensor([[1.0, 1, 5, 5], [1, 1, 5, 5]]), 0.5, 2, 2).int()
    tensor([[0, 0, 1, 1],
            [0, 0, 1, 1]], dtype=torch.int32)

    """
    matrix = scores.detach().float().reshape(scores.shape[0], -1)
    means = torch.nn.functional.avg_pool2d(matrix[None, None], (rows, columns), ceil_mode=True, count_include_pad=False)
    keep = unstructured_mask(means[0, 0], sparsity)
    whole = keep.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    return whole[: matrix.shape[0], : matrix.shape[1]].reshape(scores.shape)
