"""Architectures made smaller or larger by rule."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from lightning_green.compression._arguments import matching


def depthwise_separable(model: nn.Module, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()) -> nn.Module:
    """Return a copy in which convolutions are a depthwise one and a 1x1 one; the new layers are not trained.

    Howard et al., "MobileNets" (arXiv 1704.04861), section 3.1: of ``k^2 * M * N`` multiplications a position,
    ``k^2 * M + M * N`` are left.

    ::

        small = depthwise_separable(ResNet(), exclude=["stem"])

    Args:
        model: The model; left as it is.
        include: Patterns of the layers to replace: two-dimensional convolutions with a kernel above 1x1 and one group.
        exclude: Patterns of layers to leave alone.

    Raises:
        ValueError: If a pattern matches nothing, or there is no such layer.

    """
    model = copy.deepcopy(model)
    names = [name for name, module in model.named_modules() if _is_plain(module)]
    if not names:
        raise ValueError(f"{type(model).__name__} has no convolution with a kernel above 1x1 and one group.")
    chosen = matching("include", include, names) - matching("exclude", exclude, names)
    for name in sorted(chosen):
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, _separable(layer))
    return model


def _is_plain(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == 1 and math.prod(module.kernel_size) > 1


def _separable(layer: nn.Conv2d) -> nn.Sequential:
    padding = layer.padding if isinstance(layer.padding, str) else (int(layer.padding[0]), int(layer.padding[1]))
    depthwise = nn.Conv2d(
        layer.in_channels,
        layer.in_channels,
        (layer.kernel_size[0], layer.kernel_size[1]),
        (layer.stride[0], layer.stride[1]),
        padding,
        (layer.dilation[0], layer.dilation[1]),
        groups=layer.in_channels,
        bias=False,
        padding_mode=layer.padding_mode,
    )
    pointwise = nn.Conv2d(layer.in_channels, layer.out_channels, 1, bias=layer.bias is not None)
    separable = nn.Sequential(depthwise, nn.BatchNorm2d(layer.in_channels), nn.ReLU(), pointwise)
    return separable.to(layer.weight.device, layer.weight.dtype)


@dataclass(frozen=True)
class Scaling:
    """Factors of a network's dimensions.

    Args:
        depth: Factor of the number of layers.
        width: Factor of the number of channels.
        resolution: Factor of the image's sides.

    """

    depth: float
    width: float
    resolution: float

    def layers(self, count: int) -> int:
        """Return a scaled number of layers, rounded up."""
        return math.ceil(round(count * self.depth, 6))

    def channels(self, count: int, multiple: int = 8) -> int:
        """Return a scaled number of channels: a multiple of ``multiple``, not below nine tenths of what it would be."""
        wanted = count * self.width
        rounded = max(multiple, int(wanted + multiple / 2) // multiple * multiple)
        return rounded + multiple if rounded < 0.9 * wanted else rounded

    def side(self, pixels: int, multiple: int = 1) -> int:
        """Return a scaled side of an image."""
        return max(multiple, round(pixels * self.resolution / multiple) * multiple)


def compound_scale(phi: float, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15) -> Scaling:
    """Return factors with which a network costs about ``2^phi`` times as much; negative ``phi`` makes it smaller.

    Tan and Le, "EfficientNet" (arXiv 1905.11946), equation 3.

    Args:
        phi: How much to scale.
        alpha: Depth at ``phi`` 1.
        beta: Width at ``phi`` 1.
        gamma: Resolution at ``phi`` 1.

    Raises:
        ValueError: If a factor is below 1, or ``alpha * beta^2 * gamma^2`` is not about 2.

    >>> compound_scale(1.0)
    Scaling(depth=1.2, width=1.1, resolution=1.15)
    >>> compound_scale(1.0).channels(40)
    48

    """
    for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if value < 1:
            raise ValueError(f"`{name}` should be at least 1, got {value!r}.")
    cost = alpha * beta**2 * gamma**2
    if not 1.8 <= cost <= 2.2:
        raise ValueError(f"`alpha * beta**2 * gamma**2` should be about 2, got {cost:.2f}.")
    return Scaling(alpha**phi, beta**phi, gamma**phi)
