"""Low-rank compression of gradients, for each parameter."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lightning_green.strategies.traffic import Traffic


class LowRankCompression:
    r"""Replaces the mean gradient of a matrix by a product of two thin matrices.

    PowerSGD (Vogels et al., arXiv 1905.13727, algorithms 1 and 2): with the gradient of this rank and its error so far
    in $M = G + E$ (m × n), and $Q$ (n × r) of the last step, the ranks compute

    $$P = \operatorname{orthonormal}\Big(\sum_\text{ranks} M Q\Big), \quad
      Q' = \operatorname{mean}_\text{ranks} M^\top P, \quad \hat G = P Q'^\top, \quad E' = M - \hat G$$

    and send r (m + n) numbers instead of m n. Gradients for which that is not less, such as biases, are sent whole,
    together with the products of the others. ``PowerSGDState`` of torch keeps the errors of buckets, which are others
    after a restart; this class keeps those of parameters.

    A gradient that is not finite on one rank is not finite in the result on all ranks, and changes neither $E$ nor $Q$.

    Args:
        rank: Number of columns of P and Q.

    Attributes:
        errors: The part of the gradients that was not sent yet, by name of the parameter; differs between the ranks.
        factors: Q of the last step, by name of the parameter.

    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.errors: dict[str, torch.Tensor] = {}
        self.factors: dict[str, torch.Tensor] = {}

    def pays(self, gradient: torch.Tensor) -> bool:
        """Return whether the product has fewer numbers than a gradient."""
        if gradient.layout != torch.strided or not gradient.is_floating_point() or gradient.dim() < 2:
            return False
        rows, columns = _shape(gradient)
        return self.rank * (rows + columns) < rows * columns

    @torch.no_grad()
    def reduce(self, gradients: Sequence[tuple[str, torch.Tensor]], traffic: Traffic) -> None:
        """Replace gradients by the compressed mean over the ranks, with two all-reduces.

        Args:
            gradients: Names of parameters and their gradients.
            traffic: The ranks.

        """
        whole = [gradient for _, gradient in gradients if not self.pays(gradient)]
        matrices = [self._matrix(name, gradient) for name, gradient in gradients if self.pays(gradient)]
        for gradient in whole:
            gradient.div_(traffic.size)
        traffic.sum([*whole, *(one.left for one in matrices)])
        for one in matrices:
            one.is_finite = one.left.isfinite().all()
            one.left = torch.linalg.qr(torch.where(one.is_finite, one.left, 0.0))[0]
            one.right = (one.value.mT @ one.left).div_(traffic.size)
        traffic.sum([one.right for one in matrices])
        for one in matrices:
            self._finish(one)

    def rescale(self, factor: float) -> None:
        """Multiply the errors, because the loss will be multiplied with another number than before."""
        for error in self.errors.values():
            error.mul_(factor)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of this rank."""
        return {"errors": dict(self.errors), "factors": dict(self.factors)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the result of ``state_dict``."""
        self.errors, self.factors = dict(state["errors"]), dict(state["factors"])

    def _matrix(self, name: str, gradient: torch.Tensor) -> _Matrix:
        dtype = torch.promote_types(gradient.dtype, torch.float32)
        value = gradient.reshape(_shape(gradient)).to(dtype)
        error, factor = self.errors.get(name), self.factors.get(name)
        if error is None or error.shape != value.shape:
            error = torch.zeros_like(value)
        if factor is None or factor.shape != (value.shape[1], self.rank):
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))  # the same on all ranks
            factor = torch.randn(value.shape[1], self.rank, generator=generator)
        error, factor = (one.to(value.device, dtype) for one in (error, factor))
        value = value + error
        return _Matrix(name, gradient, value, error, factor, value @ factor)

    def _finish(self, one: _Matrix) -> None:
        finite = one.is_finite & one.right.isfinite().all()
        sent = one.left @ one.right.mT
        self.errors[one.name] = torch.where(finite, one.value - sent, one.error)
        self.factors[one.name] = torch.where(finite, one.right, one.factor)
        one.gradient.copy_(torch.where(finite, sent, torch.nan).view(one.gradient.shape))


@dataclass
class _Matrix:
    """A gradient as a matrix, with its error, and its factors."""

    name: str
    gradient: torch.Tensor
    value: torch.Tensor
    error: torch.Tensor
    factor: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor = field(init=False)
    is_finite: torch.Tensor = field(init=False)


def _shape(gradient: torch.Tensor) -> tuple[int, int]:
    rows = gradient.shape[0]
    return rows, gradient.numel() // max(rows, 1)
