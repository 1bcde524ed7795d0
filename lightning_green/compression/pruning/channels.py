"""Removal of channels: a layer becomes narrower, and so do the layers that read its output.

Dependencies between layers come from Torch-Pruning's dependency graph (Fang et al., "DepGraph", arXiv 2301.12900).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_green.compression.inputs import Inputs, call, tensors_of
from lightning_green.compression.network import restored_modes
from lightning_green.compression.outputs import output_tensors
from lightning_green.compression.patterns import matching
from lightning_green.utilities.validation import check_choice, check_fraction, check_positive_int

CHANNEL_CRITERIA = ("magnitude", "random")
# Layers whose channels are coupled in ways that the graph does not model. Groups with such a layer keep their channels,
# and so do groups with a shared weight, which would be sliced once per layer and no longer be shared.
_UNSUPPORTED = (nn.GroupNorm, nn.MultiheadAttention, nn.RNNBase, nn.Parameter)


def torch_pruning() -> Any:
    """Return the module ``torch_pruning``, or raise a ``ModuleNotFoundError`` that names the extra."""
    try:
        import torch_pruning
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Removing channels needs Torch-Pruning: pip install 'lightning-green[compression]'."
        ) from error
    return torch_pruning


class _Graph:
    """Groups of channels of a model that can only be removed together."""

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        self.tp = torch_pruning()
        # In evaluation mode, tracing changes no running statistics and no random generators.
        no_autocast = torch.autocast(tensors_of(inputs)[0].device.type, enabled=False)
        with restored_modes(model), torch.enable_grad(), no_autocast:
            model.eval()
            self.graph = self.tp.DependencyGraph().build_dependency(
                model, inputs, forward_fn=call, output_transform=_traced_outputs, verbose=False
            )
        self.names = {module: name for name, module in model.named_modules()}
        owners = Counter(id(p) for module in self.names for p in module._parameters.values() if p is not None)
        self.tied = {m for m in self.names if any(owners[id(p)] > 1 for p in m._parameters.values() if p is not None)}

    def groups(self) -> dict[str, Any]:
        """Return the removable groups by the name of their first layer."""
        found = {}
        for group in self.graph.get_all_groups():
            modules = [dep.target.module for dep, _ in group]
            if not any(isinstance(m, _UNSUPPORTED) or _is_grouped(m) or m in self.tied for m in modules):
                found[self.names[modules[0]]] = group
        return found

    def remove(self, name: str, channels: list[int]) -> None:
        """Remove channels of a layer and everything that depends on them."""
        layer = self.graph.model.get_submodule(name)
        handler = self.graph.get_pruner_of_module(layer).prune_out_channels
        self.graph.get_pruning_group(layer, handler, channels).prune()


def _is_grouped(module: Any) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd) and 1 < module.groups < max(
        module.out_channels, module.in_channels
    )


def _shapes(model: nn.Module, inputs: Inputs) -> list[torch.Size]:
    model.eval()
    with torch.no_grad():
        return [tensor.shape for tensor in output_tensors(call(model, inputs))]


def _traced_outputs(output: Any) -> list[Tensor]:
    """Return the outputs whose channels depend on those of layers. Scalars, such as a loss, have no channels."""
    return [tensor for tensor in output_tensors(output) if tensor.dim() > 1 and tensor.grad_fn is not None]


def channel_count(layer: nn.Module) -> int:
    """Return the number of output channels of a linear or convolutional layer."""
    width = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    assert isinstance(width, int)
    return width


def removable_widths(model: nn.Module, inputs: Inputs, exclude: tuple[str, ...] = ()) -> dict[str, int]:
    """Return the number of channels of each removable group, by the name of its first layer.

    Layers whose channels are the model's output are not removable. They are found by removing one channel from a copy
    and comparing the output shapes.

    Args:
        model: The network, which does not change.
        inputs: Inputs of the network: positional arguments, or a dictionary of arguments by keyword.
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
            try:
                changed = _shapes(probe, inputs) != outputs
            except RuntimeError:  # a loss inside the network may need the number of classes
                changed = True
            if changed:
                continue
        widths[name] = width
    if not widths:
        raise ValueError(f"There is no channel to remove: no layer of {type(model).__name__} is removable.")
    return widths


def _member_names(model: nn.Module, group: Any) -> list[str]:
    names = {module: name for name, module in model.named_modules()}
    return [names[dep.target.module] for dep, _ in group if dep.target.module in names]


def kept_channels(width: int, ratio: float, round_to: int) -> int:
    """Return the number of ``width`` channels to keep when a fraction is removed: a positive multiple of ``round_to``.

    Args:
        width: Number of channels.
        ratio: Fraction to remove, in [0, 1].
        round_to: Divisor of the result, unless ``width`` is smaller.

    Examples:
        >>> kept_channels(64, 0.3, 8)
        48

    """
    kept = round((1 - ratio) * width / round_to) * round_to
    return min(width, max(kept, min(round_to, width)))


def remove_channels(
    model: nn.Module,
    inputs: Inputs,
    target: float | Mapping[str, float],
    *,
    widths: Mapping[str, int],
    parameters: int,
    criterion: str = "magnitude",
    round_to: int = 1,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Remove channels from a model in place.

    Args:
        model: The network.
        inputs: Inputs of the network: positional arguments, or a dictionary of arguments by keyword.
        target: Minimum fraction of the original parameters to remove, with the same fraction of channels removed from
            every layer. Or fractions of the original *channels*, by pattern of layers.
        widths: Original number of channels of each removable layer, from ``removable_widths`` on the intact model.
        parameters: Original number of parameters of the model.
        criterion: ``"magnitude"`` (the L2 norm of all weights that depend on the channel) or ``"random"``.
        round_to: Keep multiples of this number of channels; 8 or 16 suits most hardware.
        generator: Random generator on the CPU, for ``"random"``.

    Returns:
        For every parameter that became smaller, by name: the flat indices of the remaining elements, in the new shape.
        ``slice_optimizer`` slices an optimizer's state with them.

    Raises:
        ValueError: If the target cannot be reached, a layer would lose all channels, a pattern matches nothing, or a
            number is out of range.

    Examples:
        ```python
        inputs = (torch.randn(1, 3, 32, 32),)
        widths = removable_widths(model, inputs)
        remove_channels(model, inputs, 0.5, widths=widths, parameters=sum(p.numel() for p in model.parameters()))
        ```

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
                raise ValueError(f"`target` {ratio} would remove all {widths[name]} channels of layer {name!r}.")
            ratios[name] = ratio
    return ratios


def _ratios_for(
    model: nn.Module,
    inputs: Inputs,
    target: float,
    widths: Mapping[str, int],
    parameters: int,
    round_to: int,
) -> dict[str, float]:
    """Find, by bisection on copies, the ratio of channels that takes the target's fraction of parameters."""
    check_fraction("target", target, below_one=True)
    wanted = (1 - target) * parameters

    def remaining(ratio: float) -> int:
        probe = copy.deepcopy(model)
        graph = _Graph(probe, inputs)
        for name, width in widths.items():
            now = channel_count(probe.get_submodule(name))
            if (count := now - kept_channels(width, ratio, round_to)) > 0:
                graph.remove(name, list(range(count)))
        return sum(p.numel() for p in probe.parameters())

    if (least := remaining(1.0)) > wanted:
        raise ValueError(
            f"`target` {target} cannot be reached: with {round_to} channels in every removable layer, "
            f"{least / parameters:.1%} of the parameters remain."
        )
    if sum(p.numel() for p in model.parameters()) <= wanted:
        return {}
    low, high = 0.0, 1.0
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (low, middle) if remaining(middle) <= wanted else (middle, high)
    return dict.fromkeys(widths, high)


def _surviving_indices(model: nn.Module, inputs: Inputs, removals: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """Return the flat indices of the elements that remain after the removal, by parameter.

    The channels are removed from a copy in which each element is its own index.
    """
    probe = copy.deepcopy(model).double()
    shapes = {}
    with torch.no_grad():
        for name, parameter in probe.named_parameters():
            shapes[name] = parameter.shape
            parameter.copy_(torch.arange(parameter.numel(), device=parameter.device).view(parameter.shape))
    graph = _Graph(probe, pytree.tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs))
    for name, channels in removals.items():
        graph.remove(name, channels)
    return {n: p.detach().long() for n, p in probe.named_parameters() if p.shape != shapes[n]}


def slice_optimizer(
    optimizer: torch.optim.Optimizer,
    before: Mapping[str, nn.Parameter],
    after: Mapping[str, nn.Parameter],
    indices: Mapping[str, Tensor],
) -> None:
    """Replace the parameters of an optimizer after a removal of channels, and slice its state.

    Args:
        optimizer: An optimizer whose state tensors have the parameter's shape or do not depend on it.
        before: Parameters of the model by name, before the removal.
        after: Parameters of the model by name, after the removal.
        indices: Return value of ``remove_channels``.

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
            optimizer.state[new] = {key: _slice(value, old, kept) for key, value in state.items()}


def _slice(value: Any, old: Tensor, kept: Tensor | None) -> Any:
    if kept is None or not torch.is_tensor(value) or value.shape != old.shape:
        return value
    return value.flatten()[kept.to(value.device).flatten()].view(kept.shape).contiguous()
