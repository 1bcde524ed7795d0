"""Channels that are really removed: the layers become smaller, and so does every layer that reads them.

What depends on what is found by Torch-Pruning's dependency graph (Fang et al., "DepGraph", arXiv 2301.12900).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_green.compression.patterns import matching
from lightning_green.utilities.validation import check_choice, check_fraction, check_positive_int

CHANNEL_CRITERIA = ("magnitude", "random")
# Layers whose channels are coupled in ways that the graph does not fully know; groups with one of them are left whole,
# and so are groups with a weight that several layers share, which would be cut for each of them and be shared no more.
_LEFT_WHOLE = (nn.GroupNorm, nn.MultiheadAttention, nn.RNNBase, nn.Parameter)


def torch_pruning() -> Any:
    """Return the module ``torch_pruning``, or raise with the extra that brings it."""
    try:
        import torch_pruning
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Removing channels needs Torch-Pruning: pip install 'lightning-green[compression]'."
        ) from error
    return torch_pruning


class _Graph:
    """The groups of channels of a model that can only be removed together."""

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.tp = torch_pruning()
        # In evaluation mode tracing leaves running statistics and random generators alone.
        modes = {module: module.training for module in model.modules()}
        model.eval()
        try:
            with torch.enable_grad(), torch.autocast(inputs[0].device.type, enabled=False):
                self.graph = self.tp.DependencyGraph().build_dependency(model, inputs, verbose=False)
        finally:
            for module, training in modes.items():
                module.training = training
        self.names = {module: name for name, module in model.named_modules()}
        owners = Counter(id(p) for module in self.names for p in module._parameters.values() if p is not None)
        self.tied = {m for m in self.names if any(owners[id(p)] > 1 for p in m._parameters.values() if p is not None)}

    def groups(self) -> dict[str, Any]:
        """Return each group under the name of its first layer; without those that are left whole."""
        found = {}
        for group in self.graph.get_all_groups():
            modules = [dep.target.module for dep, _ in group]
            if not any(isinstance(m, _LEFT_WHOLE) or _is_grouped(m) or m in self.tied for m in modules):
                found[self.names[modules[0]]] = group
        return found

    def remove(self, name: str, channels: list[int]) -> None:
        """Remove channels of a layer and whatever depends on them."""
        layer = self.graph.model.get_submodule(name)
        handler = self.graph.get_pruner_of_module(layer).prune_out_channels
        self.graph.get_pruning_group(layer, handler, channels).prune()


def _is_grouped(module: Any) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd) and 1 < module.groups < max(
        module.out_channels, module.in_channels
    )


def _shapes(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[torch.Size]:
    model.eval()
    with torch.no_grad():
        return [leaf.shape for leaf in tree_leaves(model(*inputs)) if isinstance(leaf, Tensor)]


def channel_count(layer: nn.Module) -> int:
    """Return the number of channels that a linear or convolutional layer puts out."""
    width = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    assert isinstance(width, int)
    return width


def removable_widths(model: nn.Module, inputs: tuple[Tensor, ...], exclude: tuple[str, ...] = ()) -> dict[str, int]:
    """Return the number of channels of each layer that can lose some, by the name of the first layer of its group.

    A layer whose channels are the model's output keeps them: this is found by removing one and looking at the output.

    Args:
        model: The network; left as it is.
        inputs: What it is called with.
        exclude: Patterns of layers that keep their channels.

    Raises:
        ValueError: If a pattern matches nothing, or nothing can be removed.

    """
    groups = _Graph(model, inputs).groups()
    members = {name: dict.fromkeys(_member_names(model, group)) for name, group in groups.items()}
    kept = matching("exclude", exclude, [n for n, _ in model.named_modules() if n])
    outputs = _shapes(copy.deepcopy(model), inputs)
    sizes = {size for shape in outputs for size in shape}
    widths = {}
    for name in groups:
        width = channel_count(model.get_submodule(name))
        if width < 2 or kept & set(members[name]):
            continue
        if width in sizes:
            probe = copy.deepcopy(model)
            _Graph(probe, inputs).remove(name, [0])
            if _shapes(probe, inputs) != outputs:
                continue
        widths[name] = width
    if not widths:
        raise ValueError(f"There is no channel to remove: no layer of {type(model).__name__} can lose one.")
    return widths


def _member_names(model: nn.Module, group: Any) -> list[str]:
    names = {module: name for name, module in model.named_modules()}
    return [names[dep.target.module] for dep, _ in group if dep.target.module in names]


def kept_channels(width: int, ratio: float, round_to: int) -> int:
    """Return how many of ``width`` channels stay when a fraction ``ratio`` goes: a multiple of ``round_to``, not zero.

    >>> kept_channels(64, 0.3, 8)
    48

    """
    kept = round((1 - ratio) * width / round_to) * round_to
    return min(width, max(kept, min(round_to, width)))


def remove_channels(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    target: float | Mapping[str, float],
    *,
    widths: Mapping[str, int],
    parameters: int,
    criterion: str = "magnitude",
    round_to: int = 1,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Remove channels from a model in place.

    ::

        inputs = (torch.randn(1, 3, 32, 32),)
        widths = removable_widths(model, inputs)
        remove_channels(model, inputs, 0.5, widths=widths, parameters=sum(p.numel() for p in model.parameters()))

    Args:
        model: The network.
        inputs: What it is called with.
        target: Fraction of the original parameters to be gone afterwards, at least: every layer loses the same
            fraction of its channels. Or fractions of the original *channels*, by pattern of layers.
        widths: Original number of channels of each removable layer, from :func:`removable_widths` on the intact model.
        parameters: Original number of parameters of the model.
        criterion: ``"magnitude"`` (the L2 norm of everything that goes with the channel) or ``"random"``.
        round_to: Keep multiples of this many channels; 8 or 16 suits most hardware.
        generator: For ``"random"``, on the CPU.

    Returns:
        For every parameter that became smaller, by name: the flat indices of the elements that stayed, in the new
            shape. Slice an
        optimizer's state with them (:func:`slice_optimizer`).

    Raises:
        ValueError: If the target cannot be reached, a layer would lose all channels, a pattern matches nothing, or a
            number is out of its range.

    """
    check_choice("criterion", criterion, CHANNEL_CRITERIA)
    check_positive_int("round_to", round_to)
    if isinstance(target, Mapping):
        ratios = _ratios_by_pattern(target, widths)
    else:
        ratios = _ratios_for(model, inputs, target, widths, parameters, round_to)
    graph = _Graph(model, inputs)
    groups = graph.groups()
    removals: dict[str, list[int]] = {}
    for name, width in widths.items():
        count = channel_count(model.get_submodule(name)) - kept_channels(width, ratios.get(name, 0.0), round_to)
        if count > 0:
            scores = _channel_scores(graph, groups[name], criterion, generator)
            removals[name] = sorted(torch.topk(scores, count, largest=False).indices.tolist())
    if not removals:
        return {}
    indices = _surviving_indices(model, inputs, removals)
    for name, channels in removals.items():
        graph.remove(name, channels)
    return indices


def _channel_scores(graph: _Graph, group: Any, criterion: str, generator: torch.Generator | None) -> Tensor:
    if criterion == "random":
        return torch.rand(channel_count(group[0].dep.target.module), generator=generator)
    scores = graph.tp.importance.GroupMagnitudeImportance(p=2)(group)
    assert isinstance(scores, Tensor)
    return scores.detach().cpu()


def _ratios_by_pattern(target: Mapping[str, float], widths: Mapping[str, int]) -> dict[str, float]:
    ratios: dict[str, float] = {}
    for pattern, ratio in target.items():
        check_fraction(f"target[{pattern!r}]", ratio)
        for name in matching("target", [pattern], list(widths)) if pattern not in widths else {pattern}:
            if round((1 - ratio) * widths[name]) < 1:
                raise ValueError(f"`target` {ratio} would take all {widths[name]} channels of layer {name!r}.")
            ratios[name] = ratio
    return ratios


def _ratios_for(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    target: float,
    widths: Mapping[str, int],
    parameters: int,
    round_to: int,
) -> dict[str, float]:
    """Find, by bisection on copies, the ratio of channels that takes the target's fraction of parameters."""
    check_fraction("target", target, below_one=True)
    wanted = (1 - target) * parameters

    def left(ratio: float) -> int:
        probe = copy.deepcopy(model)
        graph = _Graph(probe, inputs)
        for name, width in widths.items():
            now = channel_count(probe.get_submodule(name))
            if (count := now - kept_channels(width, ratio, round_to)) > 0:
                graph.remove(name, list(range(count)))
        return sum(p.numel() for p in probe.parameters())

    if (least := left(1.0)) > wanted:
        raise ValueError(
            f"`target` {target} cannot be reached: with {round_to} channels in every layer that can lose some, "
            f"{least / parameters:.1%} of the parameters are left."
        )
    if sum(p.numel() for p in model.parameters()) <= wanted:
        return {}
    low, high = 0.0, 1.0
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (low, middle) if left(middle) <= wanted else (middle, high)
    return dict.fromkeys(widths, high)


def _surviving_indices(
    model: nn.Module, inputs: tuple[Tensor, ...], removals: Mapping[str, list[int]]
) -> dict[str, Tensor]:
    """Run the same surgery on a copy whose weights are their own positions, and read off what stayed."""
    probe = copy.deepcopy(model).double()
    shapes = {}
    with torch.no_grad():
        for name, parameter in probe.named_parameters():
            shapes[name] = parameter.shape
            parameter.copy_(torch.arange(parameter.numel(), device=parameter.device).view(parameter.shape))
    graph = _Graph(probe, tuple(i.double() if i.is_floating_point() else i for i in inputs))
    for name, channels in removals.items():
        graph.remove(name, channels)
    return {n: p.detach().long() for n, p in probe.named_parameters() if p.shape != shapes[n]}


def slice_optimizer(
    optimizer: torch.optim.Optimizer,
    before: Mapping[str, nn.Parameter],
    after: Mapping[str, nn.Parameter],
    indices: Mapping[str, Tensor],
) -> None:
    """Make an optimizer that held the parameters ``before`` hold those ``after``, with its state cut alongside.

    Args:
        optimizer: Any optimizer whose state tensors have the parameter's shape or do not depend on it.
        before: The model's parameters by name before channels were removed.
        after: The same afterwards.
        indices: What :func:`remove_channels` returned.

    """
    names = {id(parameter): name for name, parameter in before.items()}
    for group in optimizer.param_groups:
        for position, old in enumerate(group["params"]):
            name = names.get(id(old))
            if name is None or after[name] is old:
                continue
            new = after[name]
            group["params"][position] = new
            state = optimizer.state.pop(old, None)
            if state is None:
                continue
            kept = indices.get(name)
            optimizer.state[new] = {key: _cut(value, old, kept) for key, value in state.items()}


def _cut(value: Any, old: Tensor, kept: Tensor | None) -> Any:
    if kept is None or not torch.is_tensor(value) or value.shape != old.shape:
        return value
    return value.flatten()[kept.to(value.device).flatten()].view(kept.shape).contiguous()
