"""Modes and numbers of a network's modules, which its graphs contain as constants."""

from __future__ import annotations

from typing import Any

from torch import nn

_CONSTANTS = frozenset({bool, int, float, str, type(None), tuple})
Settings = dict[tuple[int, str], Any]


class ModuleSettings:
    """Reads the modes and numbers of a network's modules, such as ``training`` of a batch norm and ``p`` of a dropout.

    Args:
        network: The network.

    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._ignored: set[tuple[int, str]] = set()

    def read(self, training: bool) -> Settings:
        """Return the settings by the number of the module and the name of the attribute.

        Args:
            training: Mode of the call. Modules keep their own modes if it is that of the network.

        """
        own = self._network.training == training
        found: Settings = {}
        for number, module in enumerate(self._network.modules()):
            for name, value in module.__dict__.items():
                if type(value) in _CONSTANTS:
                    found[number, name] = value
            if number:  # graphs call no hooks of the network itself
                found[number, "hooks"] = (bool(module._forward_hooks), bool(module._forward_pre_hooks))
            if not own:
                found[number, "training"] = training
        for key in self._ignored:
            found.pop(key, None)
        return found

    def changed(self, before: Settings, after: Settings) -> dict[tuple[int, str], str]:
        """Return the dotted path of each setting that differs, by its key."""
        paths = [path for path, _ in self._network.named_modules()]
        keys = [key for key in {**before, **after} if key not in before or before[key] != after.get(key)]
        return {(number, name): f"{paths[number]}.{name}".strip(".") for number, name in keys}

    def ignore(self, keys: set[tuple[int, str]]) -> None:
        """Leave out settings on which no graph depends, such as a counter."""
        self._ignored |= keys
