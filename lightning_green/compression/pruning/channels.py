"""Removal of channels: a layer becomes narrower, and so do the layers that read its output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_green.compression.inputs import Inputs
from lightning_green.compression.patterns import matching
from lightning_green.compression.pruning.channel_graph import ChannelGraph, channel_count
from lightning_green.compression.pruning.device_memory import copied, within_memory
from lightning_green.compression.pruning.removal_check import OUTPUTS, find_wrong_removals, remove_and_index
from lightning_green.utilities.validation import check_choice, check_fraction, check_positive_int

CHANNEL_CRITERIA = ("magnitude", "random")
_STEPS = 1024  # of the search for the ratio of channels


def removable_widths(model: nn.Module, inputs: Inputs, exclude: tuple[str, ...] = ()) -> dict[str, int]:
    """Return the number of channels of each layer that may lose some, the first one of its group.

    Args:
        model: The network, which does not change.
        inputs: Inputs of the network: positional arguments, or a dictionary of arguments by keyword.
        exclude: Patterns of layers that keep their channels.

    Raises:
        ValueError: If a pattern matches nothing, or nothing can be removed.

    """
    return find_removable(model, inputs, exclude)[0]


def find_removable(
    model: nn.Module, inputs: Inputs, exclude: tuple[str, ...] = ()
) -> tuple[dict[str, int], dict[str, str]]:
    """Return the widths of ``removable_widths``, and the layers that are left as they are with the reason of each.

    The removal of channels is tried on a copy, and compared with zeros in their place.

    Args:
        model: The network, which does not change.
        inputs: Inputs of the network: positional arguments, or a dictionary of arguments by keyword.
        exclude: Patterns of layers that keep their channels. Neither they nor the layers of the output are returned.

    Raises:
        ValueError: If a pattern matches nothing, or nothing can be removed.

    """
    graph = ChannelGraph(model, inputs)
    excluded = matching("exclude", exclude, [n for n, _ in model.named_modules() if n])
    widths: dict[str, int] = {}
    groups, left = graph.groups()
    for name, group in groups.items():
        members = graph.members(group)
        if excluded & set(members):
            continue
        if why := graph.unsupported(group):
            left.update(dict.fromkeys(members[:1], why))
        elif (width := channel_count(model.get_submodule(name))) > 1:
            widths[name] = width
    wrong = find_wrong_removals(model, inputs, widths)
    widths = {name: width for name, width in widths.items() if name not in wrong}
    if not widths:
        reasons = "; ".join(f"`{name}`: {why}" for name, why in {**left, **wrong}.items())
        message = f"There is no channel to remove: no layer of {type(model).__name__} is removable"
        raise ValueError(f"{message} ({reasons})." if reasons else f"{message}.")
    return widths, left | {name: why for name, why in wrong.items() if why != OUTPUTS}


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
        wanted = target
        ratios = within_memory(
            lambda net, given: _ratios_for(net, given, wanted, widths, parameters, round_to), model, inputs
        )
    graph = ChannelGraph(model, inputs)
    groups, _ = graph.groups()
    removals: dict[str, list[int]] = {}
    for name, width in widths.items():
        count = channel_count(model.get_submodule(name)) - kept_channels(width, ratios.get(name, 0.0), round_to)
        if count > 0:
            scores = _channel_scores(graph, groups[name], criterion, generator)
            removals[name] = sorted(torch.topk(scores, count, largest=False).indices.tolist())
    if not removals:
        return {}
    indices = within_memory(lambda net, given: _surviving_indices(net, given, removals), model, inputs)
    for name, channels in removals.items():
        graph.remove(name, channels)
    return indices


def _channel_scores(graph: ChannelGraph, group: Any, criterion: str, generator: torch.Generator | None) -> Tensor:
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
    """Find the lowest ratio of channels, in steps of 1/1024, that takes the target's fraction of parameters."""
    check_fraction("target", target, below_one=True)
    wanted = (1 - target) * parameters
    bare, shapes = _without_values(model, inputs)

    @cache
    def remaining(step: int) -> int:
        probe = copied(bare)
        graph = ChannelGraph(probe, shapes)
        for name, width in widths.items():
            now = channel_count(probe.get_submodule(name))
            if (count := now - kept_channels(width, step / _STEPS, round_to)) > 0:
                graph.remove(name, list(range(count)))
        return sum(p.numel() for p in probe.parameters())

    if (least := remaining(_STEPS)) > wanted:
        raise ValueError(
            f"`target` {target} cannot be reached: with {round_to} channels in every removable layer, "
            f"{least / parameters:.1%} of the parameters remain."
        )
    if sum(p.numel() for p in model.parameters()) <= wanted:
        return {}
    low, high = 0, _STEPS  # more than wanted remains at `low`, and no more at `high`
    while high - low > 1:
        # Parameters are about quadratic in the number of channels; the limits ensure that both ends move.
        most, some, few = (math.sqrt(count) for count in (remaining(low), wanted, remaining(high)))
        step = low + round((high - low) * (most - some) / (most - few))
        step = min(max(step, low + max(1, (high - low) // 16)), high - max(1, (high - low) // 16))
        low, high = (low, step) if remaining(step) <= wanted else (step, high)
    return dict.fromkeys(widths, high / _STEPS)


def _without_values(model: nn.Module, inputs: Inputs) -> tuple[nn.Module, Inputs]:
    """Return a copy of a network and its inputs without values, or both as they are if it needs them to be called."""
    meta = torch.device("meta")
    bare, shapes = copied(model, meta), pytree.tree_map_only(Tensor, lambda tensor: tensor.to(meta), inputs)
    try:
        ChannelGraph(bare, shapes)
    except ValueError:
        return model, inputs
    return bare, shapes


def _surviving_indices(model: nn.Module, inputs: Inputs, removals: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """Return the flat indices of the elements that remain after the removal, by parameter."""
    inputs = pytree.tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs)
    return remove_and_index(copied(model).double(), inputs, removals)
