"""Conversion of fake quantization to integers: a graph with int8 weights and folded batch norm."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401 - registers `quantized_decomposed`
from torch.fx import Graph, GraphModule, Node

from lightning_green.compression.call_description import CallDescription
from lightning_green.compression.inputs import Inputs, canonical_inputs, input_names, tensors_of
from lightning_green.compression.quantization.exported import (
    ExportedNetwork,
    ancestors,
    evaluate,
    export_graph,
    inference_outputs,
    outputs_of,
    target_inputs,
)
from lightning_green.compression.quantization.fake_quantize import SMALLEST_SCALE, weight_limit, weight_scales
from lightning_green.compression.quantization.rounding_points import LINEAR, find_rounding_points

# ONNX Runtime stores a bias in int32 in steps of `input scale * weight scale`. Larger numbers of steps would overflow.
_BIAS_STEPS = 2.0**30


@dataclass(frozen=True)
class Rounding:
    """Mapping of a value to an integer: ``round(value / scale) + zero_point``, clipped.

    Args:
        scale: Step between two integers.
        zero_point: Integer of the value 0.
        quant_min: Smallest integer.
        quant_max: Largest integer.

    """

    scale: float
    zero_point: int
    quant_min: int
    quant_max: int

    @property
    def dtype(self) -> torch.dtype:
        """Return the data type of the integers."""
        return torch.uint8 if self.quant_min == 0 else torch.int8


def to_int8(
    network: nn.Module,
    inputs: Inputs,
    roundings: Mapping[str, Rounding],
    keep_float: Sequence[str] = (),
    weight_bits: int = 8,
    described: CallDescription | None = None,
) -> GraphModule:
    """Return the network's evaluation graph with int8 weights and integers between its operations.

    The graph has ``quantized_decomposed`` operations around float operations. ONNX Runtime, Inductor and ExecuTorch
    replace them by integer kernels. The graph takes the tensors of the network's inputs by position or by name, and
    returns its output with dictionaries instead of dataclasses. It has no loss, and no input that only the loss needs.

    Args:
        network: The network, in float32 on the CPU.
        inputs: Inputs of the network with at least two samples.
        roundings: Rounding of each value, by the keys of
            ``find_rounding_points``.
        keep_float: Patterns of modules that stay in float, as in the search for ``roundings``.
        weight_bits: Bits of the integers of weights, which are stored in int8.
        described: Description of the inputs, with the dimensions of other sizes.

    """
    described = described or CallDescription.of(network, inputs)
    exported = export_graph(network.eval(), inputs, training=False, described=described)
    source, tensors = exported.graph, tensors_of(inputs)
    points = find_rounding_points(source, keep_float)
    keys = {node: key for key, node in points.values.items()} | points.passed_on
    for operation in points.weights.values():
        read = operation.args[0]
        assert isinstance(read, Node)
        norm = points.norms.get(operation)
        _store_weight(source, operation, norm, roundings[keys[read]], weight_limit(weight_bits))
        if norm is not None:
            norm.replace_all_uses_with(operation)
            if norm in keys:
                keys[operation] = keys.pop(norm)
            source.graph.erase_node(norm)
    for node, key in keys.items():
        _round_value(source.graph, node, roundings[key])
    kept = _drop_loss(exported)
    source.graph.eliminate_dead_code()
    source.graph.lint()
    result = GraphModule(_Constants(source), source.graph, "Int8Network")
    result.meta["inputs"] = tuple(tensors[place].clone() for place in kept)
    result.meta["tensors"] = tuple(described.tensors[place] for place in kept)
    result.meta["float_weights"] = points.float_weights
    return result.eval()


def is_int8(model: nn.Module) -> bool:
    """Return whether a model is a result of ``to_int8``."""
    return isinstance(model, GraphModule) and "inputs" in model.meta


def int8_inputs(int8: nn.Module, inputs: Inputs, network: nn.Module | None = None) -> Inputs:
    """Return the tensors that a model in int8 takes, in its order, among the inputs of its network.

    Args:
        int8: Return value of ``to_int8``.
        inputs: Inputs of the network, with those that only a loss needs or without them, in any order.
        network: The network. None if it is unknown: positional arguments are then those of the model in int8.

    Raises:
        ValueError: If an input is missing.

    """
    if network is not None:
        inputs = canonical_inputs(network, inputs)
    elif not isinstance(inputs, dict):
        return inputs
    found = dict(zip(input_names(network, inputs), tensors_of(inputs), strict=True))
    assert isinstance(int8, GraphModule)
    wanted = [str(node.target) for node in int8.graph.nodes if node.op == "placeholder"]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(f"`inputs` should contain {', '.join(missing)}, got {', '.join(found) or 'no tensor'}.")
    return tuple(found[name] for name in wanted)


def _drop_loss(exported: ExportedNetwork) -> list[int]:
    """Return plain outputs without a loss, remove the inputs that it needs, and return the places of the others."""
    graph = exported.graph.graph
    outputs, places = outputs_of(exported.graph), set(inference_outputs(exported.graph))
    targets = target_inputs(exported.graph)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    wanted = [node if place in places else None for place, node in enumerate(outputs)]
    graph.output_node().args = (exported.output.plain(wanted),)
    for node in reversed(list(graph.nodes)):
        if node.op != "output" and targets & ancestors([node]):
            graph.erase_node(node)
    return [place for place, node in enumerate(inputs) if node not in targets]


class _Constants(nn.Module):
    """The constants of a graph as buffers, without the float weights."""

    def __init__(self, source: GraphModule) -> None:
        super().__init__()
        names: dict[str, str] = {}
        for node in source.graph.nodes:
            if node.op != "get_attr":
                continue
            if node.target not in names:
                owner, _, leaf = node.target.rpartition(".")
                value = getattr(source.get_submodule(owner), leaf)
                name = names[node.target] = node.target.replace(".", "_")
                if isinstance(value, Tensor):
                    self.register_buffer(name, value.detach().clone())
                else:
                    setattr(self, name, copy.deepcopy(value))
            node.target = names[node.target]


def _store_weight(source: GraphModule, operation: Node, norm: Node | None, reading: Rounding, limit: int) -> None:
    """Replace a float weight, its bias and its batch norm by an int8 weight, one scale per channel and a bias."""
    weight = _value(source, operation.args[1])
    assert weight is not None
    bias = _value(source, operation.args[2]) if len(operation.args) > 2 else None
    factor, shift = torch.ones(weight.shape[0]), torch.zeros(weight.shape[0])
    if norm is not None:
        factor, shift = _norm_as_line(source, norm)
    new_bias = shift if bias is None else bias * factor + shift
    integers, scale = _fold(weight, factor, new_bias.abs() / (reading.scale * _BIAS_STEPS), limit)
    zero = torch.zeros(len(scale), dtype=torch.int64)
    with source.graph.inserting_before(operation):
        rounded = _stored_per_channel(source, f"{operation.name}_weight", integers.to(torch.int8), scale, zero)
        bias_node: Node | None = None
        if operation.target in LINEAR and bias is not None and reading.dtype is torch.uint8:
            # ONNX Runtime runs a linear layer with float outputs in int8 only if its bias is already quantized.
            step = scale * reading.scale
            steps = torch.round(new_bias / step).to(torch.int32)
            bias_node = _stored_per_channel(source, f"{operation.name}_bias", steps, step, zero)
        elif bias is not None or norm is not None:
            bias_node = _constant(source, f"{operation.name}_bias", new_bias)
    operation.args = (operation.args[0], rounded, bias_node, *operation.args[3:])


def _fold(weight: Tensor, factor: Tensor, smallest: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Return the integers of a weight times a factor per channel, and their scales, which are at least ``smallest``.

    A factor multiplies the scale. The integers are those of training, up to the sign of the factor.
    """
    column = (-1, *[1] * (weight.dim() - 1))
    scale = weight_scales(weight, limit)
    integers = torch.round(weight / scale.view(column)).clamp(-limit, limit) * factor.sign().view(column)
    folded = scale * factor.abs()
    wanted = torch.maximum(folded, smallest).clamp(min=SMALLEST_SCALE)
    coarser = torch.round(integers * (folded / wanted).view(column))
    return torch.where((wanted > folded).view(column), coarser, integers), wanted


def _stored_per_channel(source: GraphModule, name: str, integers: Tensor, scale: Tensor, zero: Tensor) -> Node:
    limits = torch.iinfo(integers.dtype)
    low, high = (-127, 127) if integers.dtype is torch.int8 else (limits.min, limits.max)
    nodes = [
        _constant(source, f"{name}{ending}", tensor)
        for ending, tensor in (("", integers), ("_scale", scale), ("_zero", zero))
    ]
    return source.graph.call_function(
        torch.ops.quantized_decomposed.dequantize_per_channel.default, (*nodes, 0, low, high, integers.dtype)
    )


def _constant(source: GraphModule, name: str, tensor: Tensor) -> Node:
    source.register_buffer(name, tensor)
    return source.graph.get_attr(name)


def _norm_as_line(source: GraphModule, norm: Node) -> tuple[Tensor, Tensor]:
    """Return factor and shift of a batch norm in evaluation mode: ``y = factor * x + shift``."""
    gamma, beta, mean, variance = (_value(source, argument) for argument in norm.args[1:5])
    assert mean is not None
    assert variance is not None
    eps = norm.args[7]
    assert isinstance(eps, float)
    factor = torch.rsqrt(variance + eps)
    if gamma is not None:
        factor = factor * gamma
    shift = -mean * factor
    return factor, shift if beta is None else shift + beta


def _value(source: GraphModule, argument: Any) -> Tensor | None:
    return None if argument is None else evaluate(source, argument)


def _round_value(graph: Graph, node: Node, rounding: Rounding) -> None:
    operations = torch.ops.quantized_decomposed
    numbers = (rounding.scale, rounding.zero_point, rounding.quant_min, rounding.quant_max, rounding.dtype)
    with graph.inserting_after(node):
        stored = graph.call_function(operations.quantize_per_tensor.default, (node, *numbers))
    with graph.inserting_after(stored):
        read = graph.call_function(operations.dequantize_per_tensor.default, (stored, *numbers))
    node.replace_all_uses_with(read, delete_user_cb=lambda user: user is not stored)
