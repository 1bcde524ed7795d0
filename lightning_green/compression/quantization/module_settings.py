"""Modes, numbers and tensors of a network's modules, which its graphs contain as constants."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

_CONSTANTS = frozenset({bool, int, float, str, type(None)})
Key = tuple[str, str]  # path of a module, and name of an attribute
Settings = dict[Key, Any]


class ModuleSettings:
    """Reads the modes and numbers of a network's modules, such as ``training`` of a batch norm and ``p`` of a dropout.

    Tensors that are neither parameters nor buffers count as they are: another tensor is another setting.

    Args:
        network: The network.

    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._written: set[Key] = set()
        self._irrelevant: set[Key] = set()

    def read(self, training: bool) -> Settings:
        """Return the settings.

        Args:
            training: Mode of the call. Modules keep their own modes if it is that of the network.

        """
        own = self._network.training == training
        found: Settings = {}
        for path, module in self._network.named_modules():
            for name, value in module.__dict__.items():
                if isinstance(value, Tensor):
                    found[path, name] = ("tensor", id(value))
                elif _is_constant(value):
                    found[path, name] = value
            if path:  # graphs call no hooks of the network itself
                found[path, "hooks"] = (bool(module._forward_hooks), bool(module._forward_pre_hooks))
            if not own:
                found[path, "training"] = training
        for key in self._written | self._irrelevant:
            found.pop(key, None)
        return found

    def note_written(self, keys: Iterable[Key]) -> None:
        """Leave out attributes that ``forward`` sets."""
        self._written |= set(keys)

    def ignore(self, keys: Iterable[Key]) -> None:
        """Leave out settings on which no graph depends now, such as a counter."""
        self._irrelevant |= set(keys)

    def consider_all(self) -> None:
        """Undo ``ignore``: with other settings, a graph may depend on them."""
        self._irrelevant.clear()


def changed_keys(before: Settings, after: Settings) -> set[Key]:
    """Return the keys of settings that differ."""
    missing = object()
    return {key for key in {**before, **after} if before.get(key, missing) != after.get(key, missing)}


def _is_constant(value: Any) -> bool:
    return type(value) in _CONSTANTS or (type(value) is tuple and all(map(_is_constant, value)))
