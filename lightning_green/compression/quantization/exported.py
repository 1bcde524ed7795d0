"""Export of a network to a graph of functional operations, with errors that contain the line of the user's code."""

from __future__ import annotations

import copy
import inspect
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.graph import CodeGen
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from lightning_green.compression.call_description import CallDescription, shapes_of
from lightning_green.compression.inputs import CONSTANTS, Inputs, call, input_names
from lightning_green.compression.network import (
    contents_of,
    is_changed,
    own_attributes,
    own_forward,
    restored_modes,
    set_contents,
)
from lightning_green.compression.outputs import KNOWN, OutputError, OutputStructure, leaves_of

aten = torch.ops.aten
_OUT_OF_PLACE = {
    aten.relu_.default: aten.relu.default,
    aten.hardtanh_.default: aten.hardtanh.default,
    aten.hardswish_.default: aten.hardswish.default,
    aten.hardsigmoid_.default: aten.hardsigmoid.default,
    aten.silu_.default: aten.silu.default,
    aten.sigmoid_.default: aten.sigmoid.default,
    aten.tanh_.default: aten.tanh.default,
    aten.elu_.default: aten.elu.default,
    aten.leaky_relu_.default: aten.leaky_relu.default,
    aten.dropout_.default: aten.dropout.default,
    aten.add_.Tensor: aten.add.Tensor,
    aten.mul_.Tensor: aten.mul.Tensor,
}
_OF_SIZES = {
    aten.sym_size.int,
    aten.new_empty.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.empty_like.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.rand_like.default,
    aten.randn_like.default,
}
_MOST_LINES = 5  # of a message of torch.export
_LIBRARIES = tuple(f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parents[2]))


@dataclass(frozen=True)
class ExportedNetwork:
    """The graph of a network for one kind of call.

    Args:
        graph: Takes the tensors in the network's inputs, and returns a tuple of the tensors in its output.
        output: The structure of the output.
        attributes: The structure of the attributes that ``forward`` sets, by the path of their module and their name;
            None if there are none.
        attribute_nodes: Nodes of the graph with the tensors of these attributes.

    """

    graph: GraphModule
    output: OutputStructure
    attributes: OutputStructure | None
    attribute_nodes: list[Node] = field(default_factory=list)

    def attribute_names(self) -> list[tuple[str, str]]:
        """Return the path of the module and the name of each attribute."""
        return [] if self.attributes is None else list(self.attributes.plain(self.attribute_nodes))

    def return_attributes(self) -> None:
        """Add the tensors of the attributes to the outputs of the graph."""
        output = self.graph.graph.output_node()
        output.args = ((*output.args[0], *self.attribute_nodes),)  # type: ignore[misc]

    def run(self, network: nn.Module, tensors: list[Tensor]) -> Any:
        """Return the network's output, and set the attributes that its ``forward`` sets."""
        made = self.graph(*tensors)
        count = len(made) - len(self.attribute_nodes)
        if self.attributes is not None:
            for (path, name), value in self.attributes.restore(made[count:]).items():
                setattr(network.get_submodule(path), name, value)
        return self.output.restore(made[:count])


def export_graph(
    network: nn.Module, inputs: Inputs, training: bool, described: CallDescription | None = None
) -> ExportedNetwork:
    """Return the graph of a network in training or evaluation mode; it shares its parameters and buffers.

    Args:
        network: The network, whose mode does not change. If it is in the mode of ``training``, its modules keep their
            own modes, such as that of a batch norm with constant statistics.
        inputs: Inputs with at least two samples along dimension 0.
        training: Whether layers such as dropout and batch norm are in training mode.
        described: Description of the inputs, with the dimensions of other sizes that the graph accepts. None for other
            numbers of samples.

    Raises:
        ValueError: If the network cannot be exported; the message contains the line and a remedy.

    """
    tensors = tuple(leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor))
    described = described or CallDescription.of(network, inputs)
    shapes = shapes_of(described.tensors, torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC)
    with restored_modes(network), _flat_forward(network, inputs) as traced:
        if network.training != training:
            network.train(training)
        try:
            with torch.autocast(tensors[0].device.type, enabled=False):
                exported = torch.export.export(network, tensors, dynamic_shapes=shapes)
        except OutputError as error:
            raise ValueError(
                f"`model` should be the dotted path of a network that can be quantized, but {type(network).__name__} "
                f"cannot: {error}"
            ) from error
        except Exception as error:
            raise ValueError(_explain(network, error)) from error
    graph = exported.module(check_guards=False)
    assert isinstance(graph, GraphModule)
    graph.graph.set_codegen(CodeGen())
    _drop_assertions(graph)
    _make_functional(graph)
    if not training:
        _drop_counters(graph)
    output, attributes = traced[-1]
    made = list(graph.graph.output_node().args[0])  # type: ignore[arg-type]
    count = len(made) - (0 if attributes is None else attributes.count)
    graph.graph.output_node().args = (tuple(made[:count]),)
    return ExportedNetwork(graph, output, attributes, made[count:])


@contextmanager
def _flat_forward(network: nn.Module, inputs: Inputs) -> Iterator[list[tuple[OutputStructure, OutputStructure | None]]]:
    """Replace a network's forward by one from tensors to tensors; yield the structures of its outputs and attributes.

    ``torch.export`` accepts only the classes of outputs that are registered with it.
    """
    leaves, structure = pytree.tree_flatten(inputs)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    before, plain = network.__dict__.get("forward"), own_forward(network)
    structures: list[tuple[OutputStructure, OutputStructure | None]] = []

    def forward(*tensors: Tensor) -> list[Any]:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        before = [
            (path, module, dict(module.__dict__), contents_of(own_attributes(module)))
            for path, module in network.named_modules()
        ]
        output = call(plain, pytree.tree_unflatten(filled, structure))
        written = _restore_attributes(network, before)
        attributes = OutputStructure(written) if written else None
        structures.append((OutputStructure(output), attributes))
        return [*structures[-1][0].tensors(output), *(attributes.tensors(written) if attributes else [])]

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in input_names(network, inputs)]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    network.forward = forward
    try:
        yield structures
    finally:
        if before is None:
            del network.__dict__["forward"]
        else:
            network.forward = before


def _restore_attributes(
    network: nn.Module, before: list[tuple[str, nn.Module, dict[str, Any], dict[str, Any]]]
) -> dict[tuple[str, str], Any]:
    """Return the attributes of modules that a call has set, and give them their earlier values.

    Otherwise a module would keep tensors without data.

    Raises:
        OutputError: If a value is neither a tensor nor a constant nor a container of them.

    """
    written: dict[tuple[str, str], Any] = {}
    for path, module, attributes, contents in before:
        for name, content in contents.items():
            value = attributes[name]
            if is_changed(value, content) and _has_tensors(value):  # a container that was changed in place
                written[path, name] = copy.copy(value)
                set_contents(value, content)
        for name, value in list(module.__dict__.items()):
            if name in attributes and (attributes[name] is value or _is_same_constant(attributes[name], value)):
                continue
            written[path, name] = value
            if name in attributes:
                module.__dict__[name] = attributes[name]
                if isinstance(value, (int, float)) and isinstance(attributes[name], (int, float)):
                    warnings.warn(
                        f"`forward` of {type(network).__name__} changes the number `{_join(path, name)}`, which stays "
                        f"{value!r} in fake quantization. Register it as a buffer, or change it outside the network.",
                        stacklevel=2,
                    )
            else:
                del module.__dict__[name]
    for (path, name), value in written.items():
        unknown = {type(leaf).__name__ for leaf in leaves_of(value) if not isinstance(leaf, KNOWN)}
        if unknown:
            raise OutputError(
                f"Its `forward` sets the attribute `{_join(path, name)}` to {', '.join(sorted(unknown))} instead of "
                "tensors or containers of tensors."
            )
    if not _has_tensors(list(written.values())):
        return {}  # constants, which the plain forward has set as well
    return written


def _has_tensors(value: Any) -> bool:
    return any(isinstance(leaf, (Tensor, torch.SymInt)) for leaf in leaves_of(value))


def _is_same_constant(one: Any, other: Any) -> bool:
    return isinstance(other, CONSTANTS) and type(one) is type(other) and one == other


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _explain(network: nn.Module, error: Exception) -> str:
    """Return a message with the line of the user's code that could not be exported, and with what helps if known."""
    # As slow to import as ``torch.export`` itself, which has imported both here.
    from torch._dynamo.exc import UserError, UserErrorType
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.line and not f.filename.startswith(_LIBRARIES)]
    source = getattr(sys.modules.get(type(network).__module__), "__file__", None)
    own = [f for f in frames if f.filename == source] or frames
    where = ""
    if own:
        last = own[-1]
        where = f" at {Path(last.filename).name}:{last.lineno} (`{last.line}`)"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()][:_MOST_LINES] or [type(error).__name__]
    failed = f"{type(network).__name__} cannot be exported for quantization{where}"
    if isinstance(error, GuardOnDataDependentSymNode):
        return (
            f"{failed}: {lines[0]} Rewrite that line without Python control flow over values of tensors (torch.where, "
            "torch.cond), move it out of the network, or select a smaller network with `model`."
        )
    reported = "\n  ".join(lines)
    if isinstance(error, UserError) and error.error_type is UserErrorType.CONSTRAINT_VIOLATION:
        return (
            f"{failed}, because it accepts one size only. Use the sizes of its inputs (`x.shape[0]`, or -1 in `view`) "
            f"instead of constants, or select a smaller network with `model`. torch.export reports:\n  {reported}"
        )
    return (
        f"{failed}. The cause is not known to Lightning Green. Move what fails out of the network, or select a smaller "
        f"network with `model`. torch.export reports:\n  {type(error).__name__}: {reported}"
    )


def _drop_assertions(graph_module: GraphModule) -> None:
    """Remove assertions of data types and devices, which differ under autocast and after a move."""
    for node in list(graph_module.graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            graph_module.graph.erase_node(node)


def _make_functional(graph_module: GraphModule) -> None:
    """Replace in-place operations, so that a value can be rounded between two operations."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        replacement = _OUT_OF_PLACE.get(node.target) if node.op == "call_function" else None
        if replacement is None or not isinstance(node.args[0], Node) or node.args[0].op == "get_attr":
            continue  # buffers, such as the counters of batch norm, have to change
        written = node.args[0]
        node.target = replacement
        later = False
        for other in list(graph.nodes):
            if later:
                other.replace_input_with(written, node)
            later = later or other is node
    graph.lint()
    graph_module.recompile()


def _drop_counters(graph_module: GraphModule) -> None:
    """Remove the counters of batch norm, so that evaluation changes no buffer."""
    for node in list(graph_module.graph.nodes):
        if node.op == "call_function" and node.target is aten.add_.Tensor and not node.users:
            graph_module.graph.erase_node(node)
    graph_module.recompile()


def outputs_of(graph_module: GraphModule) -> list[Node]:
    """Return the output nodes of an exported graph."""
    return list(graph_module.graph.output_node().args[0])  # type: ignore[arg-type]


def target_inputs(graph_module: GraphModule) -> set[Node]:
    """Return the inputs that only scalar outputs depend on: the targets of a loss inside the network."""
    needed = ancestors([node for node in outputs_of(graph_module) if shape_of(node) != torch.Size([])])
    inputs = {node for node in graph_module.graph.nodes if node.op == "placeholder" and node.users}
    return inputs - needed if needed else set()


def inference_outputs(graph_module: GraphModule) -> list[int]:
    """Return the positions of the outputs that do not depend on the targets of a loss."""
    targets = target_inputs(graph_module)
    return [i for i, node in enumerate(outputs_of(graph_module)) if not targets & ancestors([node])]


def ancestors(nodes: Iterable[Node]) -> set[Node]:
    """Return nodes with all nodes that they depend on."""
    found: set[Node] = set()
    queue = list(nodes)
    while queue:
        node = queue.pop()
        if node not in found:
            found.add(node)
            queue.extend(node.all_input_nodes)
    return found


def depends_on_inputs(node: Node) -> bool:
    """Return whether a result depends on the values of the inputs; that of random numbers depends on sizes only."""
    seen: set[Node] = set()
    queue = [node]
    while queue:
        node = queue.pop()
        if node.op == "placeholder":
            return True
        if node not in seen and node.target not in _OF_SIZES:
            seen.add(node)
            queue.extend(node.all_input_nodes)
    return False


def evaluate(graph_module: GraphModule, node: Node) -> Tensor:
    """Return the result of an operation that depends on no input, such as the weight of a weight norm."""
    needed, values = ancestors([node]), dict[Node, Any]()
    for one in graph_module.graph.nodes:
        if one not in needed:
            continue
        if one.op == "get_attr":
            owner, _, leaf = str(one.target).rpartition(".")
            values[one] = getattr(graph_module.get_submodule(owner), leaf)
        else:
            args, kwargs = map_arg((one.args, one.kwargs), values.__getitem__)
            values[one] = one.target(*args, **kwargs)
    value = values[node]
    assert isinstance(value, Tensor)
    return value.detach().float()


def owner_path(node: Node) -> str:
    """Return the dotted path of the module that an operation belongs to."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return str(paths[-1]) if paths else ""


def is_inside(node: Node, path: str) -> bool:
    """Return whether an operation belongs to a module or to one of its descendants."""
    stack = node.meta.get("nn_module_stack") or {}
    return any(inner == path or inner.startswith(f"{path}.") for inner, _ in stack.values())


def shape_of(node: Node) -> torch.Size | None:
    """Return the shape of an operation's result, or None if it is not a tensor."""
    value = node.meta.get("val")
    return value.shape if isinstance(value, Tensor) else None
