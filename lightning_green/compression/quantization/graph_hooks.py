"""Calls of module hooks in a graph, in which the modules themselves no longer exist."""

from __future__ import annotations

import operator
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule, Node
from typing_extensions import override

from lightning_green.compression.quantization.exported import is_inside


def call_hooks(graph_module: GraphModule, network: nn.Module) -> None:
    """Add calls of the current forward hooks and forward pre-hooks of the network's modules to a graph.

    Distillation reads features through such hooks, and precision plugins keep modules in float32 with them.

    Args:
        graph_module: A graph of the network, with fake quantization inserted.
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
    """Replace a node by another in all its users, except in the other node itself."""
    node.replace_all_uses_with(by, delete_user_cb=lambda user: user is not by)


class _HookCaller(nn.Module):
    """Call the forward hooks of a module on its output."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = [module]  # in a list, so that it is not registered as a submodule

    @override
    def forward(self, output: Tensor) -> Tensor:
        module = self._module[0]
        for key, hook in module._forward_hooks.items():
            if key in module._forward_hooks_with_kwargs:
                hook(module, (), {}, output)
            else:
                hook(module, (), output)
        return output


class _PreHookCaller(nn.Module):
    """Call the forward pre-hooks of a module and return its possibly changed inputs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = [module]  # in a list, so that it is not registered as a submodule

    @override
    def forward(self, *inputs: Tensor) -> tuple[Any, ...]:
        module, given = self._module[0], tuple(inputs)
        for key, hook in module._forward_pre_hooks.items():
            if key in module._forward_pre_hooks_with_kwargs:
                changed = hook(module, given, {})
                given = given if changed is None else changed[0]
            else:
                changed = hook(module, given)
                given = given if changed is None else changed if isinstance(changed, tuple) else (changed,)
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
    """Return whether a node is an input of a module: not a weight, and not a rounding inside the module."""
    if source.op == "get_attr" or str(source.target) == "round_weight":
        return False
    return not (source.op == "call_module" and any(made in own for made in source.all_input_nodes))


def _up_to(graph_module: GraphModule, last: Node) -> list[Node]:
    """Return the nodes before ``last``."""
    nodes = list(graph_module.graph.nodes)
    return nodes[: nodes.index(last)]
