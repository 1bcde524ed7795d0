"""Hooks of a network's modules, kept alive in a graph that has taken the modules apart."""

from __future__ import annotations

import operator
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule, Node
from typing_extensions import override

from lightning_green.compression.quantization.exported import is_inside


def call_hooks(graph_module: GraphModule, network: nn.Module) -> None:
    """Let a graph call the forward hooks, and the hooks before them, that the network's modules have now.

    Features for distillation are read through them, and modules that a precision plugin keeps in float32 are kept so by
    a pair of them.

    Args:
        graph_module: A graph of the network, rounded already.
        network: The network.

    """
    graph = graph_module.graph
    for number, (path, module) in enumerate(network.named_modules()):
        if not path or not (module._forward_hooks or module._forward_pre_hooks):
            continue
        inside = [n for n in graph.nodes if n.op == "call_function" and is_inside(n, path)]
        if not inside:
            continue
        if module._forward_pre_hooks:
            _call_before(graph_module, f"before_{number}", module, inside)
        if module._forward_hooks:
            _call_after(graph_module, f"hooks_{number}", module, inside[-1])
    graph.lint()
    graph_module.recompile()


def replace_uses(node: Node, by: Node) -> None:
    """Have all that read a node read another one, which reads the node itself."""
    node.replace_all_uses_with(by, delete_user_cb=lambda user: user is not by)


class _HookCaller(nn.Module):
    """Calls the forward hooks of a module that the graph has taken apart."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._of = [module]  # in a list, so that it is no submodule

    @override
    def forward(self, output: Tensor) -> Tensor:
        module = self._of[0]
        for key, hook in module._forward_hooks.items():
            if key in module._forward_hooks_with_kwargs:
                hook(module, (), {}, output)
            else:
                hook(module, (), output)
        return output


class _PreHookCaller(nn.Module):
    """Calls the hooks before a module that the graph has taken apart, and returns the inputs that they make."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._of = [module]

    @override
    def forward(self, *inputs: Tensor) -> tuple[Any, ...]:
        module, given = self._of[0], tuple(inputs)
        for key, hook in module._forward_pre_hooks.items():
            if key in module._forward_pre_hooks_with_kwargs:
                answer = hook(module, given, {})
                given = given if answer is None else answer[0]
            else:
                answer = hook(module, given)
                given = given if answer is None else answer if isinstance(answer, tuple) else (answer,)
        return given


def _call_before(graph_module: GraphModule, name: str, module: nn.Module, inside: list[Node]) -> None:
    graph, own = graph_module.graph, set(inside)
    read = dict.fromkeys(
        source
        for node in inside
        for source in node.all_input_nodes
        if source not in own and _is_activation(source, own)
    )
    first = inside[0]
    graph_module.add_submodule(name, _PreHookCaller(module))
    known = set(_up_to(graph_module, first))
    sources = [source for source in read if source in known]
    with graph.inserting_before(first):
        called = graph.call_module(name, tuple(sources))
        made = [graph.call_function(operator.getitem, (called, i)) for i in range(len(sources))]
    for source, new in zip(sources, made, strict=True):
        for node in inside:
            node.replace_input_with(source, new)


def _call_after(graph_module: GraphModule, name: str, module: nn.Module, last: Node) -> None:
    user = next(iter(last.users), None)
    if user is not None and str(user.target).startswith("round_value"):
        last = user
    graph_module.add_submodule(name, _HookCaller(module))
    with graph_module.graph.inserting_after(last):
        watched = graph_module.graph.call_module(name, (last,))
    replace_uses(last, watched)


def _is_activation(source: Node, own: set[Node]) -> bool:
    """Return whether a node comes into a module from outside: no weight, no rounding between its parts."""
    if source.op == "get_attr" or str(source.target) == "round_weight":
        return False
    return not (source.op == "call_module" and any(made in own for made in source.all_input_nodes))


def _up_to(graph_module: GraphModule, last: Node) -> list[Node]:
    """Return the nodes before ``last``."""
    nodes = list(graph_module.graph.nodes)
    return nodes[: nodes.index(last)]
