"""Tensors in the outputs of networks: a tensor, or tuples, dictionaries and dataclasses of tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import SymInt, Tensor

from lightning_green.compression.inputs import CONSTANTS

KNOWN = (Tensor, SymInt, *CONSTANTS)
"""Types of what may be in the containers of an output."""


class OutputError(ValueError):
    """An output with something other than tensors and constants, or without a tensor."""


class OutputStructure:
    """The structure of an output, without its tensors.

    Dataclasses (also those that are dictionaries, such as ``ModelOutput`` of Hugging Face), dictionaries, tuples and
    lists may be nested.

    Args:
        output: Return value of a network.

    Raises:
        OutputError: If the output has something other than tensors and constants, or no tensor.

    """

    def __init__(self, output: Any) -> None:
        leaves, self._rebuild = _flatten(output)
        _, self._rebuild_plain = _flatten(output, plain=True)
        self._places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, (Tensor, SymInt))]
        self._template = [None if isinstance(leaf, (Tensor, SymInt)) else leaf for leaf in leaves]
        unknown = sorted({type(leaf).__name__ for leaf in self._template if not isinstance(leaf, CONSTANTS)})
        if unknown or not self._places:
            what = ", ".join(unknown) or "no tensor"
            raise OutputError(f"The outputs should be tensors or containers of tensors, got {what}.")
        self.restore(self.tensors(output))  # raises now if a class cannot be constructed

    @property
    def count(self) -> int:
        """The number of tensors."""
        return len(self._places)

    def tensors(self, output: Any) -> list[Any]:
        """Return the tensors of an output of this structure."""
        leaves, _ = _flatten(output)
        return [leaves[place] for place in self._places]

    def restore(self, tensors: Sequence[Any]) -> Any:
        """Return an output of the original classes with other tensors."""
        return self._rebuild(self._filled(tensors))

    def plain(self, tensors: Sequence[Any]) -> Any:
        """Return dictionaries, tuples and lists with other tensors; items that are None are omitted."""
        return _without_none(self._rebuild_plain(self._filled(tensors)))

    def _filled(self, tensors: Sequence[Any]) -> Iterator[Any]:
        leaves = list(self._template)
        for place, tensor in zip(self._places, tensors, strict=True):
            leaves[place] = tensor
        return iter(leaves)


def leaves_of(output: Any) -> list[Any]:
    """Return everything in the containers of an output, in its order."""
    return _flatten(output)[0]


def output_tensors(output: Any) -> list[Tensor]:
    """Return the tensors of an output, in its order."""
    return [leaf for leaf in leaves_of(output) if isinstance(leaf, Tensor)]


def compared_tensors(output: Any) -> list[Tensor]:
    """Return the floating-point tensors of an output without scalars, such as a loss; all tensors if there are none.

    Integers, such as classes, change by a whole step at the smallest difference.
    """
    tensors = output_tensors(output)
    return [tensor for tensor in tensors if tensor.dim() and tensor.is_floating_point()] or tensors


def only_tensor(output: Any, argument: str) -> Tensor:
    """Return the only tensor of an output that is not a scalar.

    Args:
        output: Return value of a network or a layer.
        argument: The user's argument that selects another one, with what it should be, for the message.

    Raises:
        ValueError: If there are several such tensors, or none.

    """
    if isinstance(output, Tensor):
        return output
    found = [tensor for tensor in output_tensors(output) if tensor.dim()]
    if len(found) != 1:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in found) or "no tensor"
        raise ValueError(f"{argument}, got {type(output).__name__} with {shapes}.")
    return found[0]


def logits_of(output: Any, argument: str) -> Tensor:
    """Return the logits of an output: a tensor, the item or attribute ``logits``, or the only tensor.

    Args:
        output: Return value of a network.
        argument: The user's argument that selects the logits, for the message.

    Raises:
        ValueError: If the output has neither.

    """
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(found, Tensor):
        return found
    return only_tensor(output, f"`{argument}` should be a function that returns the logits from the network's output")


def _flatten(value: Any, plain: bool = False) -> tuple[list[Any], Callable[[Iterator[Any]], Any]]:
    """Return the leaves of a nested output, and a function that builds it from other leaves."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        own = {field.name for field in dataclasses.fields(value) if not field.init}
        return _flatten_items(items, dict if plain else _constructor(type(value), own), plain)
    if isinstance(value, Mapping):
        return _flatten_items(dict(value), dict if plain else type(value), plain)
    if isinstance(value, (tuple, list)):
        kind = type(value)
        if hasattr(value, "_fields"):
            make: Callable[[Any], Any] = tuple if plain else lambda items: kind(*items)
        else:
            make = (tuple if isinstance(value, tuple) else list) if plain else kind
        leaves, rebuild = _flatten_items(dict(enumerate(value)), dict, plain)
        return leaves, lambda items: make(rebuild(items).values())
    return [value], next


def _flatten_items(
    items: Mapping[Any, Any], make: Callable[[Any], Any], plain: bool
) -> tuple[list[Any], Callable[[Iterator[Any]], Any]]:
    parts = {key: _flatten(item, plain) for key, item in items.items()}
    leaves = [leaf for part, _ in parts.values() for leaf in part]
    builders = {key: rebuild for key, (_, rebuild) in parts.items()}
    return leaves, lambda items: make({key: rebuild(items) for key, rebuild in builders.items()})


def _constructor(kind: type, later: set[str]) -> Callable[[Mapping[str, Any]], Any]:
    def make(items: Mapping[str, Any]) -> Any:
        made = kind(**{name: item for name, item in items.items() if name not in later})
        for name in later:
            object.__setattr__(made, name, items[name])
        return made

    return make


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, (tuple, list)):
        return type(value)(_without_none(item) for item in value if item is not None)
    return value
