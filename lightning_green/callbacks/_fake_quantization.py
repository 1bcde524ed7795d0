"""Fake quantization of the network inside a ``LightningModule``, with a state that a checkpoint restores."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_green.compression.call_description import CallDescription, DynamicSizes
from lightning_green.compression.input_recorder import InputRecorder
from lightning_green.compression.network import find_network, uncompiled
from lightning_green.compression.quantization.quantized_forward import plain_forward, quantized_forward
from lightning_green.compression.quantization.quantized_network import MOST_CALLS, QuantizedNetwork

_NAMED_WEIGHTS = 6  # in a message


class FakeQuantization:
    """Build the fake-quantized graphs of a module's network and replace the network's forward by them.

    The state of a checkpoint is applied by ``restore``, once the module has loaded its weights.

    Args:
        model: Dotted path of the network; None for the only child with parameters.
        keep_float: Patterns of modules inside the network that stay in float.
        activation: ``"uint8"`` or ``"int8"``.
        weight_bits: 7, 8 or None.
        dynamic: Dimensions of inputs that have other sizes in other calls.

    """

    def __init__(
        self,
        model: str | None,
        keep_float: Sequence[str],
        activation: str,
        weight_bits: int | None,
        dynamic: DynamicSizes | None,
    ) -> None:
        self.quantized: QuantizedNetwork | None = None
        self._model = model
        self._make_graphs = functools.partial(
            QuantizedNetwork,
            keep_float=tuple(keep_float),
            activation=activation,
            weight_bits=weight_bits,
            dynamic=dynamic,
        )
        self._dynamic = dynamic
        self._inputs = InputRecorder(MOST_CALLS, dynamic)
        self._module: weakref.ref[pl.LightningModule] | None = None
        self._restored: dict[str, Any] | None = None
        self._checked = 0

    def attach(self, pl_module: pl.LightningModule, stage: str) -> None:
        """Record the inputs of the module's network; in a fit, forget the graphs of another module.

        Raises:
            ValueError: If there is no such network.

        """
        network = find_network(pl_module, self._model)
        if self._module is None or (stage == "fit" and self._module() is not pl_module):
            self._module, self.quantized, self._inputs = (
                weakref.ref(pl_module),
                None,
                InputRecorder(MOST_CALLS, self._dynamic),
            )
            self._checked = 0
        if self.quantized is None and self._module() is pl_module:
            self._inputs.attach(network)

    def detach(self, pl_module: pl.LightningModule) -> None:
        """Restore the network's own forward, if the module is attached; graphs and ranges are kept."""
        self._inputs.close()
        if self._module is not None and self._module() is pl_module:
            plain_forward(find_network(pl_module, self._model))

    def can_begin(self) -> bool:
        """Return whether the network's inputs are known.

        Raises:
            ValueError: If the arguments of the network's call are not supported.

        """
        return self._inputs.has_seen_call()

    def check(self, pl_module: pl.LightningModule) -> None:
        """Export each kind of call of the network as soon as it is known, and discard the graphs.

        The first time, weights that stay in float are named.

        Raises:
            ValueError: If the network cannot be quantized, or one of its calls is not supported.

        """
        self._inputs.require_supported()
        if self.quantized is None and self.can_begin() and len(self._inputs.calls) > self._checked:
            network = uncompiled(find_network(pl_module, self._model))
            quantized = self._build(network)
            with self._inputs.paused():
                for described in self._inputs.calls[self._checked :]:
                    quantized.prepare(described)
            if not self._checked and quantized.float_weights:
                rank_zero_info(_kept_in_float(quantized.float_weights))
            self._checked = len(self._inputs.calls)

    def require_call(self, pl_module: pl.LightningModule) -> None:
        """Raise a ``ValueError`` if the network has not been called."""
        self._inputs.require_call(uncompiled(find_network(pl_module, self._model)))

    def begin(self, pl_module: pl.LightningModule) -> QuantizedNetwork:
        """Export the network's graphs and compute its calls with them.

        Raises:
            ValueError: If the network cannot be exported or a pattern matches nothing.

        """
        network = find_network(pl_module, self._model)
        self._inputs.close()
        self.quantized = self._build(uncompiled(network))
        quantized_forward(network, self.quantized)
        return self.quantized

    def restore(self, pl_module: pl.LightningModule) -> None:
        """Apply the state of a checkpoint, if one was loaded, and compute the network's calls with the graphs.

        Another module than that of the fit, without a checkpoint, keeps its own forward.
        """
        state, self._restored = self._restored, None
        if state is not None:
            self._module, self.quantized = weakref.ref(pl_module), None
            self._inputs.restore(state["inputs"])
            plain_forward(find_network(pl_module, self._model))
            if state["ranges"] is not None:
                self.begin(pl_module).load_state_dict(state["ranges"])
        elif self.quantized is not None and self._module is not None and self._module() is pl_module:
            self.quantized.share_tensors()
            quantized_forward(find_network(pl_module, self._model), self.quantized)

    def quantized_of(self, pl_module: pl.LightningModule) -> QuantizedNetwork:
        """Return the graphs of a module's network, which may be another object than in training.

        Raises:
            ValueError: If fake quantization has not begun.

        """
        network = uncompiled(find_network(pl_module, self._model))
        if self._restored is None and self.quantized is not None and self.quantized.network is network:
            self.quantized.share_tensors()
            return self.quantized
        state = self._restored or self.state_dict()
        if state["ranges"] is None:
            raise ValueError(
                "There is nothing to convert because fake quantization has not begun. Train past `begin` first."
            )
        self._inputs.restore(state["inputs"])
        quantized = self._build(network)
        quantized.load_state_dict(state["ranges"])
        return quantized

    def state_dict(self) -> dict[str, Any]:
        """Return the network's inputs and the ranges of its activations."""
        ranges = None if self.quantized is None else self.quantized.state_dict()
        return {"inputs": self._inputs.state(), "ranges": ranges}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state of a checkpoint until ``restore``."""
        self._restored = state_dict

    def _build(self, network: nn.Module) -> QuantizedNetwork:
        described = self._inputs.first
        assert described is not None
        if self._dynamic is not None:  # the description may be that of a checkpoint without them
            example = described.examples(torch.device("cpu"))
            described = described.with_dynamic(CallDescription.of(network, example, self._dynamic))
        with self._inputs.paused():
            return self._make_graphs(network, described)


def _kept_in_float(names: Sequence[str]) -> str:
    """Return the message about weights that stay in float."""
    named = [f"`{name}`" for name in names[:_NAMED_WEIGHTS]]
    more = [f"{len(names) - len(named)} more"] if len(names) > len(named) else []
    return f"`QuantizationAwareTraining` leaves these weights in float: {', '.join(named + more)}."
