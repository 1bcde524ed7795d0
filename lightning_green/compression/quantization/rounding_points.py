"""Selection of the weights and values of a graph to quantize.

The rules follow ONNX Runtime on x86. Its int8 convolutions, additions and products need 8-bit inputs *and* outputs, so
every convolution (with its batch norm and ReLU), linear layer, addition, product and concatenation has both. The output
of a pooling, a reshape or a dropout has the scale of its input.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule, Node

from lightning_green.compression.patterns import matching
from lightning_green.compression.quantization.exported import (
    ancestors,
    depends_on_inputs,
    inference_outputs,
    outputs_of,
    owner_path,
    shape_of,
)

aten = torch.ops.aten
CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
}
LINEAR = {aten.linear.default}
NORMS = {aten.batch_norm.default}
CLIPS = {aten.relu.default, aten.hardtanh.default}
PAIRS = {aten.add.Tensor, aten.mul.Tensor}
SCALINGS = {aten.mul.Tensor, aten.div.Tensor}
RANDOM = {
    aten.bernoulli.default,
    aten.bernoulli.p,
    aten.bernoulli_.float,
    aten.bernoulli_.Tensor,
    aten.rand.default,
    aten.rand_like.default,
    aten.randn_like.default,
    aten.dropout.default,
}
UNARY = {
    *CLIPS,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.silu.default,
    aten.sigmoid.default,
    aten.tanh.default,
    aten.gelu.default,
    aten.leaky_relu.default,
    aten.elu.default,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.mean.dim,
}
SAME_SCALE = {
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.adaptive_max_pool2d.default,
    aten.flatten.using_ints,
    aten.view.default,
    aten.reshape.default,
    aten.permute.default,
    aten.transpose.int,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.dropout.default,
    aten.contiguous.default,
}


@dataclass
class RoundingPoints:
    """Weights and values of a graph to quantize.

    Args:
        weights: Operation that uses a weight (a convolution or a linear layer), by the key of its rounding.
        values: Operation whose result is rounded, by the key of its rounding, in the order of the graph.
        passed_on: Key of the rounding whose scale the result of an operation has, by operation.
        norms: Batch norm that is folded into an operation of ``weights``, by operation.
        float_weights: Names of the weights that stay in float.

    """

    weights: dict[str, Node] = field(default_factory=dict)
    values: dict[str, Node] = field(default_factory=dict)
    passed_on: dict[Node, str] = field(default_factory=dict)
    norms: dict[Node, Node] = field(default_factory=dict)
    float_weights: list[str] = field(default_factory=list)


def find_rounding_points(graph_module: GraphModule, keep_float: Sequence[str] = ()) -> RoundingPoints:
    """Return the weights and values of an exported graph to quantize.

    Keys depend on the graph's structure only, so they are equal in the graphs of training and evaluation and in another
    process. A loss of targets inside the network is not rounded and changes no key.

    Args:
        graph_module: An exported graph with functional operations.
        keep_float: Patterns of modules whose operations stay in float.

    Raises:
        ValueError: If a pattern matches nothing, or there is nothing to quantize.

    """
    outputs = outputs_of(graph_module)
    live = ancestors(outputs[position] for position in inference_outputs(graph_module))
    operations = [node for node in graph_module.graph.nodes if node.op == "call_function" and node in live]
    paths = dict.fromkeys(path for node in operations if (path := owner_path(node)))
    kept = matching("keep_float", keep_float, [*paths, *_parents(paths)]) if keep_float else set()
    points = RoundingPoints()
    rounded: set[Node] = set()
    ends: set[Node] = set()  # last operation of each fused group
    for node in operations:
        if any(path in kept for path in _parents([owner_path(node)])) or node in ends:
            continue
        if _is_weighted(node):
            weight = node.args[1]
            assert isinstance(weight, Node)
            name = str(weight.target) if weight.op == "get_attr" else f"{owner_path(node)}.weight".strip(".")
            points.weights[_unused(points.weights, name)] = node
            end = _fold_norm(node, points, live)
            end = _only_user(end, CLIPS, live) or end
            rounded.add(_as_node(node.args[0]))
            if not (node.target in LINEAR and _is_output(end, live)):  # the network's outputs are not rounded
                rounded.add(end)
            ends.add(end)
        elif node.target in PAIRS and all(_is_activation(a) for a in node.args[:2]):
            end = _only_user(node, CLIPS, live) or node
            rounded.update({_as_node(node.args[0]), _as_node(node.args[1]), end})
            ends.add(end)
        elif node.target is aten.cat.default:
            rounded.update({*(_as_node(part) for part in node.args[0]), node})
    _propagate(operations, rounded, ends, kept, live, points)
    points.float_weights = _float_weights(graph_module, live, points)
    if not points.weights:
        raise ValueError("There is nothing to quantize: every convolution and linear layer is in `keep_float`.")
    return points


def _propagate(
    operations: list[Node],
    rounded: set[Node],
    ends: set[Node],
    kept: set[str],
    live: set[Node],
    points: RoundingPoints,
) -> None:
    """Propagate scales through operations that preserve them, and assign a key to every rounded value."""
    order = [n for n in operations[0].graph.nodes if n.op in ("placeholder", "call_function")] if operations else []
    keys: dict[Node, str] = {}
    for node in order:
        if node not in live:
            continue
        source = node.args[0] if node.args else None
        if node.op == "call_function" and isinstance(source, Node) and source in keys and node not in ends:
            free = not any(path in kept for path in _parents([owner_path(node)]))
            if node.target in SAME_SCALE:
                points.passed_on[node] = keys[node] = keys[source]
                continue
            if node.target in UNARY and free and not _is_output(node, live):
                rounded.add(node)
        if node in rounded:
            keys[node] = f"value_{len(points.values)}"
            points.values[keys[node]] = node


def _is_weighted(node: Node) -> bool:
    if node.target not in CONVOLUTIONS | LINEAR or len(node.args) < 2:
        return False
    weight = node.args[1]
    return isinstance(weight, Node) and not depends_on_inputs(weight) and _is_activation(node.args[0])


def _is_activation(value: object) -> bool:
    if not isinstance(value, Node) or value.op == "get_attr":
        return False
    meta = value.meta.get("val")
    if not (isinstance(meta, torch.Tensor) and meta.is_floating_point() and meta.dim() > 1):
        return False
    return not _is_random(value)


def _as_node(value: object) -> Node:
    """Return a node, or what was multiplied by a random mask (stochastic depth), which evaluation does not have."""
    assert isinstance(value, Node)
    node, is_masked = value, False
    while node.target in SCALINGS and isinstance(node.args[0], Node):
        factor = node.args[1]
        if isinstance(factor, Node) and _is_random(factor):
            is_masked = True
        elif isinstance(factor, Node):
            break
        node = node.args[0]
    return node if is_masked else value


def _is_random(node: Node) -> bool:
    return node.op != "get_attr" and not depends_on_inputs(node) and any(n.target in RANDOM for n in ancestors([node]))


def _float_weights(graph_module: GraphModule, live: Set[Node], points: RoundingPoints) -> list[str]:
    """Return the names of the parameters with two dimensions or more that no quantized weight is computed from."""
    quantized = ancestors(_as_node(node.args[1]) for node in points.weights.values())
    parameters = dict(graph_module.named_parameters())
    names = {str(node.target) for node in live - quantized if node.op == "get_attr"}
    return sorted(name for name in names if name in parameters and parameters[name].dim() > 1)


def _is_output(node: Node, live: Set[Node]) -> bool:
    return not any(user in live for user in node.users)


def _only_user(node: Node, targets: Set[Any], live: Set[Node]) -> Node | None:
    """Return the user of a node if it is the only one and one of the operations ``targets``."""
    users = [user for user in node.users if user in live or user.op == "output"]
    return users[0] if len(users) == 1 and users[0].target in targets else None


def _fold_norm(node: Node, points: RoundingPoints, live: Set[Node]) -> Node:
    """Return the batch norm that follows an operation and can be folded into it; otherwise the operation."""
    norm = _only_user(node, NORMS, live)
    shape = shape_of(node)
    if norm is None or (node.target in LINEAR and (shape is None or len(shape) != 2)):
        return node
    if not isinstance(norm.args[3], Node):  # no running statistics to fold
        return node
    points.norms[node] = norm
    return norm


def _parents(paths: Sequence[str] | dict[str, None]) -> list[str]:
    """Return the paths and those of all their ancestors."""
    found: dict[str, None] = {}
    for path in paths:
        pieces = path.split(".")
        found.update(dict.fromkeys(".".join(pieces[:i]) for i in range(1, len(pieces) + 1)))
    return list(found)


def _unused(taken: dict[str, Node], key: str) -> str:
    """Return the key, with a number if a weight is used more than once."""
    number = 1
    numbered = key
    while numbered in taken:
        number += 1
        numbered = f"{key}#{number}"
    return numbered
