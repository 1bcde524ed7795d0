"""Gradients that are sent in a format of 16 bits."""

from __future__ import annotations

import torch

from lightning_green.strategies.traffic import Traffic

FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def begin_mean(
    gradients: torch.Tensor, traffic: Traffic, dtype: torch.dtype | None = None, clamps: bool = True
) -> torch.futures.Future[torch.Tensor]:
    """Begin to replace gradients by their mean over the ranks.

    Args:
        gradients: The gradients of a bucket.
        traffic: The ranks.
        dtype: Format in which they are sent; None for their own. Complex and sparse gradients, integers, and gradients
            of 16 bits keep their own.
        clamps: Whether the largest number of fp16 is sent in place of larger ones; otherwise they become infinite.

    Returns:
        A future of the same tensor.

    """
    narrow = dtype is not None and gradients.is_floating_point() and gradients.layout == torch.strided
    if not narrow or dtype is None or gradients.element_size() <= dtype.itemsize:
        whole = traffic.begin_sum(gradients.div_(traffic.size))
        return whole.then(lambda done: _like(done.value()[0], gradients))
    sent = traffic.begin_sum((_fit(gradients, dtype) if clamps else gradients.to(dtype)).div_(traffic.size))
    return sent.then(lambda done: gradients.copy_(done.value()[0]))


def _like(result: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Return the result of an all-reduce; torch sends a complex number as two real ones."""
    return torch.view_as_complex(result) if gradients.is_complex() and not result.is_complex() else result


def _fit(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return values in a format; the largest number of fp16 in place of larger ones, and infinity as it is."""
    if dtype != torch.float16:
        return values.to(dtype)
    limit = torch.finfo(dtype).max
    return torch.where(values.isinf(), values, values.clamp(-limit, limit)).to(dtype)
