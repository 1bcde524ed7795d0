"""Replacement of a network's ``forward`` by its fake-quantized graphs. Parameters, names and class do not change."""

from __future__ import annotations

import copy
import types
import weakref
from typing import Any

from torch import nn

from lightning_green.compression.inputs import canonical
from lightning_green.compression.network import ReplacedForward, uncompiled
from lightning_green.compression.quantization.quantized_network import QuantizedNetwork


def quantized_forward(network: nn.Module, quantized: QuantizedNetwork) -> None:
    """Compute calls of a network in fake quantization.

    Args:
        network: The network, or the module that ``torch.compile`` returned for it.
        quantized: The graphs of the network.

    """
    plain_forward(network)
    network.forward = _Forward(network, quantized, network.__dict__.get("forward"))


def plain_forward(network: nn.Module) -> None:
    """Undo ``quantized_forward``, if it was applied."""
    current = network.__dict__.get("forward")
    if isinstance(current, _Forward):
        if current.plain is None:
            del network.__dict__["forward"]
        else:
            network.forward = current.plain


class _Forward(ReplacedForward):
    """A fake-quantized ``forward``. A deep copy of the network, such as an average of weights, has the plain one."""

    def __init__(self, network: nn.Module, quantized: QuantizedNetwork, plain: Any) -> None:
        super().__init__(plain)
        self._network, self._quantized = weakref.ref(network), quantized

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        network = self._network()
        assert network is not None
        return self._quantized.compute(canonical(uncompiled(network), args, kwargs), network.training)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self.plain is not None:
            return copy.deepcopy(self.plain, memo)
        copied = memo[id(self._network())]
        return types.MethodType(type(copied).forward, copied)
