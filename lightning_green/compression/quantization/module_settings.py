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
        self._latest: dict[bool, _Reading] = {}

    def read(self, training: bool) -> Settings:
        """Return the settings.

        Args:
            training: Mode of the call. Modules keep their own modes if it is that of the network.

        """
        latest = self._latest.get(training)
        if latest is not None and latest.is_current():
            return latest.settings
        settings = self._read(training)
        self._latest[training] = _Reading(self._network, settings)
        return settings

    def _read(self, training: bool) -> Settings:
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
        self._latest.clear()

    def ignore(self, keys: Iterable[Key]) -> None:
        """Leave out settings on which no graph depends now, such as a counter."""
        self._irrelevant |= set(keys)
        self._latest.clear()

    def consider_all(self) -> None:
        """Undo ``ignore``: with other settings, a graph may depend on them."""
        self._irrelevant.clear()
        self._latest.clear()


class _Reading:
    """Settings, and what they were read from: they are read in each step, and objects are compared faster than values.

    Args:
        network: The network.
        settings: Its settings. Their values stay alive here, so that no other value takes their place in memory.

    """

    def __init__(self, network: nn.Module, settings: Settings) -> None:
        self.settings = settings
        owners = [vars(module) for module in network.modules()]
        inner = [own[name] for own in owners for name in ("_modules", "_forward_hooks", "_forward_pre_hooks")]
        self._objects = [(names, tuple(map(id, names.values()))) for names in (*owners, *inner)]
        self._alive = [value for own in owners for value in own.values() if _is_constant(value)]

    def is_current(self) -> bool:
        """Return whether no attribute, submodule or hook has been replaced."""
        return all(tuple(map(id, names.values())) == objects for names, objects in self._objects)


def changed_keys(before: Settings, after: Settings) -> set[Key]:
    """Return the keys of settings that differ."""
    missing = object()
    return {key for key in {**before, **after} if before.get(key, missing) != after.get(key, missing)}


def _is_constant(value: Any) -> bool:
    return type(value) in _CONSTANTS or (type(value) is tuple and all(map(_is_constant, value)))
