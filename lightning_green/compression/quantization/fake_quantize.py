"""Fake quantization: rounding to eight bits, with the gradient of the identity.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
(arXiv 1712.05877); the rounding is ``torch.fake_quantize_*``, whose backward is the straight-through estimator.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

ACTIVATIONS = ("uint8", "int8")
_RANGES = {"uint8": (0, 255), "int8": (-128, 127)}
SMALLEST_SCALE = 2.0**-24
# Without VNNI, x86 adds two 8-bit products in 16 bits, which can overflow: 2 * 255 * 127 > 32767. With 7-bit weights
# it cannot, and a model has the same outputs on every processor. ARM and XNNPACK have no such limit.
WEIGHT_BITS = {"uint8": 7, "int8": 8}


def check_weight_bits(value: int | None) -> None:
    """Raise a ``ValueError`` unless ``value`` is 7, 8 or None."""
    if value not in (None, 7, 8) or isinstance(value, bool):
        raise ValueError(f"`weight_bits` should be 7, 8 or None, got {value!r}.")


def weight_limit(bits: int) -> int:
    """Return the largest integer of a weight with ``bits`` bits; the smallest is its negative.

    Examples:
        >>> weight_limit(8), weight_limit(7)
        (127, 63)

    """
    return int(2 ** (bits - 1)) - 1


def affine_parameters(low: Tensor, high: Tensor, quant_min: int, quant_max: int) -> tuple[Tensor, Tensor]:
    """Return the scale and zero point of the range [low, high], extended to contain 0. Zero is exact.

    Args:
        low: Smallest value.
        high: Largest value.
        quant_min: Smallest integer.
        quant_max: Largest integer.

    Examples:
        >>> affine_parameters(torch.tensor(-1.0), torch.tensor(4.0), 0, 255)
        (tensor(0.0196), tensor(51, dtype=torch.int32))

    """
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = ((high - low) / (quant_max - quant_min)).clamp(min=SMALLEST_SCALE)
    zero_point = (quant_min - torch.round(low / scale)).clamp(quant_min, quant_max)
    return scale, zero_point.to(torch.int32)


def weight_scales(weight: Tensor, limit: int = 127) -> Tensor:
    """Return the scale of each output channel (dimension 0), at which its largest magnitude is the integer ``limit``.

    Examples:
        >>> weight_scales(torch.tensor([[1.27, -2.54], [0.0, 0.127]]))
        tensor([0.0200, 0.0010])

    """
    largest = weight.detach().float().abs().flatten(1).amax(1)
    return (largest / limit).clamp(min=SMALLEST_SCALE)


class WeightFakeQuantize(nn.Module):
    """Fake quantization of a weight, symmetric, with one scale per output channel.

    The scale is computed from the current weight and not stored. Because scales are symmetric and per channel, folding
    batch norm into the weight at conversion multiplies the scale and does not change the integers. Training therefore
    matches the converted model without folded weights.

    Args:
        bits: Bits of the integers.

    """

    def __init__(self, bits: int = 8) -> None:
        super().__init__()
        self.limit = weight_limit(bits)

    @override
    def forward(self, weight: Tensor) -> Tensor:
        scale = weight_scales(weight, self.limit)
        zero_point = torch.zeros_like(scale, dtype=torch.int32)
        rounded = torch.fake_quantize_per_channel_affine(weight.float(), scale, zero_point, 0, -self.limit, self.limit)
        return rounded.to(weight.dtype)


class ActivationFakeQuantize(nn.Module):
    """Fake quantization of an activation, with a moving average of its range.

    The n-th observation has the weight ``max(averaging, 1 / n)``, so the first batches are averaged equally. With
    several processes, an observation is the range of all their batches.

    Args:
        dtype: ``"uint8"`` or ``"int8"``.
        averaging: Weight of a new observation.

    """

    def __init__(self, dtype: str = "uint8", averaging: float = 0.01) -> None:
        super().__init__()
        self.quant_min, self.quant_max = _RANGES[dtype]
        self.averaging = averaging
        self.observing = False
        self.count = 0
        self._range: Tensor | None = None  # (-low, high): the maximum over processes is the joint range
        self._cached_parameters: tuple[Tensor, Tensor] | None = None

    @override
    def forward(self, value: Tensor) -> Tensor:
        if self.observing:
            self.observe(value)
        if self._range is None:
            return value
        scale, zero_point = self.quantization_parameters(value.device)
        rounded = torch.fake_quantize_per_tensor_affine(
            value.float(), scale, zero_point, self.quant_min, self.quant_max
        )
        return rounded.to(value.dtype)

    @torch.inference_mode(False)  # training uses the result after a test
    @torch.no_grad()
    def observe(self, value: Tensor) -> None:
        """Update the range with a batch, unless it has non-finite values (an overflow in fp16)."""
        if value.numel() == 0:
            return
        low, high = torch.aminmax(value.detach())
        new = torch.stack([-low, high]).float()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(new, torch.distributed.ReduceOp.MAX)
        if self._range is None:
            if not bool(torch.isfinite(new).all()):
                return
            self._range = new
        self.count += 1
        old = self._range.to(new.device)
        averaged = old + max(self.averaging, 1 / self.count) * (new - old)
        self._range = torch.where(torch.isfinite(new).all(), averaged, old)
        self._cached_parameters = None

    @torch.inference_mode(False)
    def quantization_parameters(self, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Return scale (float32) and zero point (int32).

        Raises:
            ValueError: If nothing has been observed.

        """
        if self._range is None:
            raise ValueError("There is no scale because fake quantization has observed no data.")
        if device is not None and self._range.device != device:
            self._range, self._cached_parameters = self._range.to(device), None
        if self._cached_parameters is None:
            low, high = -self._range[0], self._range[1]
            self._cached_parameters = affine_parameters(low, high, self.quant_min, self.quant_max)
        return self._cached_parameters

    def observed(self) -> dict[str, Any]:
        """Return the number of observations and the range, for a checkpoint."""
        return {"count": self.count, "range": None if self._range is None else self._range.clone()}

    @torch.inference_mode(False)
    def restore(self, observed: dict[str, Any]) -> None:
        """Restore the return value of ``observed``."""
        self.count = observed["count"]
        self._range = None if observed["range"] is None else observed["range"].clone()
        self._cached_parameters = None
