"""Fake quantization of a network by graphs of its calls."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from lightning_green.compression.call_description import CallDescription, DynamicSizes
from lightning_green.compression.inputs import Inputs, as_inputs, canonical_inputs
from lightning_green.compression.quantization.call_graphs import CallGraphs
from lightning_green.compression.quantization.fake_quantize import (
    ACTIVATIONS,
    WEIGHT_BITS,
    ActivationFakeQuantize,
    check_weight_bits,
)
from lightning_green.compression.quantization.int8 import Rounding, to_int8
from lightning_green.utilities.validation import check_choice

MOST_CALLS = 8  # kinds of calls before a warning


class QuantizedNetwork:
    """Fake quantization of a network, without a Trainer.

    The network does not change. The graphs share its parameters and buffers, so an optimizer of the network's
    parameters trains through them, and its checkpoints keep their names. Outputs may be tensors, or dataclasses,
    dictionaries and tuples of them. A call with other arguments, such as labels, or of another size has graphs of its
    own with the same ranges. A loss that the network computes from labels is not rounded.

    Args:
        network: The network.
        inputs: Positional arguments, or a dictionary of arguments by keyword, with at least two samples along
            dimension 0 of the tensors. The graphs accept other numbers of samples. Or the description of a call.
        keep_float: Patterns of modules that stay in float.
        activation: ``"uint8"`` for ONNX Runtime and Inductor on x86, ``"int8"`` for XNNPACK (ExecuTorch).
        weight_bits: 7 or 8. None for 7 with ``"uint8"``, which is exact on every x86 processor, and 8 with ``"int8"``.
            Eight bits are slightly finer, but with ``"uint8"`` they overflow on processors without VNNI.
        dynamic: Dimensions of inputs that have other sizes in other calls, by the name of the argument, such as
            ``{"tokens": [1]}`` for sequences of any length. Without it, calls of each size have graphs of their own,
            and the model in int8 accepts only the sizes of ``inputs``.

    Attributes:
        float_weights: Names of the weights that stay in float.

    Raises:
        ValueError: If the network cannot be exported, a pattern matches nothing, or training and evaluation have
            different operations.

    Examples:
        ```python
        quantized = QuantizedNetwork(network, (torch.randn(2, 3, 32, 32),))
        loss = criterion(quantized.run(x), y)    # trains the parameters of `network` itself
        int8 = quantized.convert()
        ```

    """

    def __init__(
        self,
        network: nn.Module,
        inputs: Inputs | CallDescription,
        keep_float: Sequence[str] = (),
        activation: str = "uint8",
        weight_bits: int | None = None,
        dynamic: DynamicSizes | None = None,
    ) -> None:
        check_choice("activation", activation, ACTIVATIONS)
        check_weight_bits(weight_bits)
        self.weight_bits = weight_bits or WEIGHT_BITS[activation]
        self.network = network
        self.keep_float, self.activation, self.dynamic = tuple(keep_float), activation, dynamic
        self.observing = True
        if isinstance(inputs, CallDescription):
            given, described = None, inputs
        else:
            given = canonical_inputs(network, inputs)
            described = CallDescription.of(network, given, dynamic)
        first = self._export(described)
        with torch.inference_mode(False):
            self.inputs: Inputs = (
                first.described.examples(next(network.parameters()).device, batch=2)
                if given is None
                else pytree.tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), given)
            )
        self.float_weights = first.float_weights
        self.roundings = {key: ActivationFakeQuantize(activation) for key, _ in first.rounded}
        first.insert(self.roundings, self.weight_bits)
        self._calls = [first]

    def run(self, *inputs: Any, training: bool = True, observe: bool | None = None) -> Any:
        """Return the network's output in fake quantization.

        Args:
            inputs: Positional arguments of the network.
            training: Whether layers such as dropout and batch norm are in training mode.
            observe: Whether to update the ranges of activations. None to update them in training while ``observing``.

        """
        return self.compute(inputs, training, observe)

    def compute(self, inputs: Inputs, training: bool = True, observe: bool | None = None) -> Any:
        """Return the network's output in fake quantization, as ``run``.

        Args:
            inputs: Positional arguments, or a dictionary of arguments by keyword.
            training: Whether layers such as dropout and batch norm are in training mode.
            observe: Whether to update the ranges of activations. None to update them in training while ``observing``.

        Raises:
            ValueError: If a call with these arguments cannot be exported, or has other operations.

        """
        inputs = canonical_inputs(self.network, inputs)
        graphs = self._graphs(inputs)
        observe = training and self.observing if observe is None else observe
        for rounding in self.roundings.values():
            rounding.observing = observe
        return graphs.run(inputs, training)

    def prepare(self, described: CallDescription) -> None:
        """Export the graphs of a call, unless there are graphs of such calls.

        Raises:
            ValueError: If such a call cannot be exported, or has other operations.

        """
        device = next(self.network.parameters()).device
        if not any(graphs.fit(described.examples(device)) for graphs in self._calls):
            self._add(described)

    def has_unseen(self) -> bool:
        """Return whether an activation has no range."""
        return any(rounding.count == 0 for rounding in self.roundings.values())

    def share_tensors(self) -> None:
        """Share the network's current tensors. A move to another device replaces its buffers."""
        for graphs in self._calls:
            graphs.share_tensors()

    def convert(self) -> GraphModule:
        """Return a copy on the CPU that computes with 8-bit integers, with int8 weights and folded batch norm.

        Raises:
            ValueError: If fake quantization has observed no data.

        """
        network = copy.deepcopy(self.network).cpu().float()
        inputs = pytree.tree_map_only(Tensor, _on_cpu, self.inputs)
        ranges = {}
        for key, rounding in self.roundings.items():
            scale, zero_point = rounding.quantization_parameters()
            ranges[key] = Rounding(scale.item(), int(zero_point.item()), rounding.quant_min, rounding.quant_max)
        return to_int8(network, inputs, ranges, self.keep_float, self.weight_bits, self._calls[0].described)

    def state_dict(self) -> dict[str, Any]:
        """Return the ranges of the activations."""
        return {key: rounding.observed() for key, rounding in self.roundings.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the ranges of the same network.

        Raises:
            ValueError: If the ranges are those of another network.

        """
        if state.keys() != self.roundings.keys():
            raise ValueError(
                f"The checkpoint has ranges of {len(state)} activations, but the network has {len(self.roundings)}. "
                "Load it into the same network with the same `keep_float`."
            )
        for key, rounding in self.roundings.items():
            rounding.restore(state[key])

    def _graphs(self, inputs: Inputs) -> CallGraphs:
        fitting = next((graphs for graphs in self._calls if graphs.fit(inputs)), None)
        return fitting or self._add(CallDescription.of(self.network, inputs, self.dynamic))

    def _export(self, described: CallDescription) -> CallGraphs:
        """Return the graphs of a call, in which tensors may be as large as the batch by coincidence."""
        problem: ValueError | None = None
        for alternative in described.alternatives():
            try:
                return CallGraphs(self.network, alternative, self.keep_float)
            except ValueError as error:  # noqa: PERF203
                problem = problem or error
        assert problem is not None
        raise problem

    def _add(self, described: CallDescription) -> CallGraphs:
        """Export the graphs of a call with other arguments or of another size."""
        graphs = self._export(described)
        if graphs.rounded != self._calls[0].rounded:
            raise ValueError(
                f"{type(self.network).__name__} should have the same operations in all of its calls to be quantized, "
                "but it has others with these arguments. Always pass the same arguments, or set `model` to a part of "
                "the network."
            )
        graphs.insert(self.roundings, self.weight_bits)
        self._calls.append(graphs)
        if len(self._calls) == MOST_CALLS + 1:
            warnings.warn(
                f"{type(self.network).__name__} has been called in {len(self._calls)} different ways in fake "
                "quantization, and the graphs of each are exported and kept in memory. If a number changes from call "
                "to call, pass it as a tensor. Name dimensions of other sizes in `dynamic`, or pad tensors to a few "
                "sizes.",
                stacklevel=2,
            )
        return graphs


def quantize(
    network: nn.Module,
    batches: Iterable[tuple[Any, ...] | Mapping[str, Any] | Tensor],
    keep_float: Sequence[str] = (),
    activation: str = "uint8",
    weight_bits: int | None = None,
    dynamic: DynamicSizes | None = None,
) -> GraphModule:
    """Quantize a trained network without further training.

    Args:
        network: The network, which does not change.
        batches: Inputs with at least two samples each: tensors, tuples of positional arguments, or dictionaries of
            arguments by keyword. A few hundred samples suffice to calibrate the ranges.
        keep_float: Patterns of modules that stay in float.
        activation: As in ``QuantizedNetwork``.
        weight_bits: As in ``QuantizedNetwork``.
        dynamic: As in ``QuantizedNetwork``.

    Returns:
        The model in int8, on the CPU.

    Raises:
        ValueError: If there is no batch, or the network cannot be quantized.

    Examples:
        ```python
        int8 = quantize(network, [images for images, _ in loader])
        ```

    """
    quantized = None
    for batch in batches:
        inputs = as_inputs(batch)
        if quantized is None:
            quantized = QuantizedNetwork(network, inputs, keep_float, activation, weight_bits, dynamic)
        with torch.no_grad():
            quantized.compute(inputs, training=False, observe=True)
    if quantized is None:
        raise ValueError("`batches` should contain at least one batch, got none.")
    return quantized.convert()


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.cpu().float() if tensor.is_floating_point() else tensor.cpu()
