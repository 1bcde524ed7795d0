"""Inputs of a network's calls: one form for positional and keyword arguments, and names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_green.compression.network import own_forward

CONSTANTS = (type(None), bool, int, float, str)
Inputs = tuple[Any, ...] | dict[str, Any]  # positional arguments, or arguments by keyword


def call(network: Any, inputs: Inputs) -> Any:
    """Return the output of a network, or of another callable."""
    return network(**inputs) if isinstance(inputs, dict) else network(*inputs)


def as_inputs(batch: Tensor | tuple[Any, ...] | Mapping[str, Any]) -> Inputs:
    """Return a batch as inputs: a tensor is the only argument, a mapping has arguments by keyword."""
    if isinstance(batch, Tensor):
        return (batch,)
    return dict(batch) if isinstance(batch, Mapping) else tuple(batch)


def tensors_of(inputs: Any) -> list[Tensor]:
    """Return the tensors in inputs, in their order."""
    return [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]


def tensor_bytes(tensor: Tensor) -> bytes:
    """Return the values of a tensor of any type as bytes, for a digest."""
    return bytes(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def canonical(network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Inputs:
    """Return the arguments of a call in a form that does not depend on how they were passed.

    Arguments that equal their default are omitted. The others are positional, or all by keyword if an argument before
    them is omitted or they are keyword-only.

    Args:
        network: The network.
        args: Positional arguments.
        kwargs: Arguments by keyword.

    Raises:
        ValueError: If ``forward`` does not accept the arguments, or there are both ``*args`` and arguments by keyword.

    """
    try:
        bound = inspect.signature(own_forward(network)).bind(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`model` should be a network whose `forward` accepts the arguments of its calls, but that of "
            f"{type(network).__name__} does not: {error}."
        ) from None
    parameters = dict(bound.signature.parameters)
    kinds = {parameters[name].kind for name in bound.arguments}
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        for name, value in list(bound.arguments.items()):
            if _is_default(value, parameters[name].default):
                del bound.arguments[name]
    positional, keywords = bound.args, bound.kwargs
    if not keywords:
        return positional
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        raise ValueError(
            f"`model` should be a network without `*args` next to arguments by keyword, got {type(network).__name__}."
        )
    return dict(zip(parameters, positional, strict=False)) | dict(keywords)


def canonical_inputs(network: nn.Module, inputs: Inputs) -> Inputs:
    """Return inputs in the form of ``canonical``."""
    return canonical(network, (), inputs) if isinstance(inputs, dict) else canonical(network, inputs, {})


def input_names(network: nn.Module | None, inputs: Inputs) -> list[str]:
    """Return a name for each tensor of inputs: the parameter of ``forward``, and the place in a container.

    Args:
        network: The network; None if all inputs are arguments by keyword.
        inputs: Its inputs.

    """
    parameters = [] if network is None else list(inspect.signature(own_forward(network)).parameters.values())
    kinds = [parameter.kind for parameter in parameters]
    first_of_several = (
        kinds.index(inspect.Parameter.VAR_POSITIONAL) if inspect.Parameter.VAR_POSITIONAL in kinds else -1
    )
    names: list[str] = []
    for path, leaf in pytree.tree_flatten_with_path(inputs)[0]:
        if not isinstance(leaf, Tensor):
            continue
        place = pytree.keystr(path)
        if not isinstance(inputs, dict):
            position = path[0].idx  # type: ignore[attr-defined]
            if 0 <= first_of_several <= position:
                place = parameters[first_of_several].name + place
            else:
                place = parameters[position].name + pytree.keystr(path[1:])
        name = re.sub(r"\W+", "_", place).strip("_")
        names.append(name if name not in names else f"{name}_{len(names)}")
    return names


def _is_default(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, CONSTANTS) and type(value) is type(default) and value == default)
