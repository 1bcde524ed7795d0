"""Fake quantization: numbers rounded to what eight bits can hold, with the gradient of the identity.

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
_SMALLEST_SCALE = 2.0**-24
# Without VNNI, x86 adds two products of eight bits in sixteen, which overflow: 2 * 255 * 127 > 32767. With seven bits
# for the weights they do not, and a model answers the same on every processor. ARM and XNNPACK have no such limit.
WEIGHT_BITS = {"uint8": 7, "int8": 8}


def check_weight_bits(value: int | None) -> None:
    """Raise a ``ValueError`` unless ``value`` is 7, 8 or None."""
    if value not in (None, 7, 8) or isinstance(value, bool):
        raise ValueError(f"`weight_bits` should be 7, 8 or None, got {value!r}.")


def weight_limit(bits: int) -> int:
    """Return the largest integer of a weight; the smallest is its negative.

    >>> weight_limit(8), weight_limit(7)
    (127, 63)

    """
    return int(2 ** (bits - 1)) - 1


def affine_parameters(low: Tensor, high: Tensor, quant_min: int, quant_max: int) -> tuple[Tensor, Tensor]:
    """Return scale and zero point such that [low, high], widened to contain 0, fits, and 0 is exact.

    Args:
        low: The smallest value.
        high: The largest value.
        quant_min: Smallest integer.
        quant_max: Largest integer.

    >>> affine_parameters(torch.tensor(-1.0), torch.tensor(4.0), 0, 255)
    (tensor(0.0196), tensor(51, dtype=torch.int32))

    """
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = ((high - low) / (quant_max - quant_min)).clamp(min=_SMALLEST_SCALE)
    zero_point = (quant_min - torch.round(low / scale)).clamp(quant_min, quant_max)
    return scale, zero_point.to(torch.int32)


def weight_scales(weight: Tensor, limit: int = 127) -> Tensor:
    """Return the scale of each output channel (dimension 0): its largest magnitude becomes the integer ``limit``.

    >>> weight_scales(torch.tensor([[1.27, -2.54], [0.0, 0.127]]))
    tensor([0.0200, 0.0010])

    """
    largest = weight.detach().float().abs().flatten(1).amax(1)
    return (largest / limit).clamp(min=_SMALLEST_SCALE)


class WeightFakeQuantize(nn.Module):
    """Fake quantization of a weight: symmetric, one scale for each output channel, always that of the weight as it is.

    It has no state, so a scale is never older than its weight. Because scales are per channel and symmetric, folding
    batch norm into the weight afterwards multiplies the scale and leaves the integers as they are: training needs no
    folded weights to be true to the model that is converted.

    Args:
        bits: Of the integers.

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

    Each observation counts ``max(averaging, 1 / n)`` for the n-th, so the first batches are averaged equally and a
    short training does not hang on its first batch. With several processes the range is that of all their batches.

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
        self._range: Tensor | None = None  # (-low, high): one tensor, whose maximum over processes is what is wanted
        self._parameters_now: tuple[Tensor, Tensor] | None = None

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

    @torch.inference_mode(False)  # what a test computes is used by training again
    @torch.no_grad()
    def observe(self, value: Tensor) -> None:
        """Take a batch into the range; one with infinite or undefined values (an overflow in fp16) is left out."""
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
        self._parameters_now = None

    @torch.inference_mode(False)
    def quantization_parameters(self, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Return scale (float32) and zero point (int32).

        Raises:
            ValueError: If nothing was observed yet.

        """
        if self._range is None:
            raise ValueError("There is no scale yet: fake quantization has to see data first.")
        if device is not None and self._range.device != device:
            self._range, self._parameters_now = self._range.to(device), None
        if self._parameters_now is None:
            low, high = -self._range[0], self._range[1]
            self._parameters_now = affine_parameters(low, high, self.quant_min, self.quant_max)
        return self._parameters_now

    def observed(self) -> dict[str, Any]:
        """Return what was observed, for a checkpoint."""
        return {"count": self.count, "range": None if self._range is None else self._range.clone()}

    @torch.inference_mode(False)
    def restore(self, observed: dict[str, Any]) -> None:
        """Continue from what another one observed."""
        self.count = observed["count"]
        self._range = None if observed["range"] is None else observed["range"].clone()
        self._parameters_now = None
