"""Registries: the names that users write, and the class behind each."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any


class Registry(Mapping[str, Any]):
    """A mapping from names to classes or functions, each imported when it is first looked up.

    Other packages add entries through an entry point group. In a package's ``pyproject.toml``:

        [project.entry-points."lightning_green.grid"]
        my-utility = "my_package.signals:MyUtilitySignal"

    Args:
        group: Entry point group, for example ``"lightning_green.grid"``.
        builtin: ``"module:attribute"`` by name. An entry point cannot replace a built-in name.

    Examples:
        >>> registry = Registry("lightning_green.doctest", {"counter": "collections:Counter"})
        >>> registry["counter"]
        <class 'collections.Counter'>
        >>> sorted(registry)
        ['counter']

    """

    def __init__(self, group: str, builtin: Mapping[str, str]) -> None:
        self.group = group
        self._builtin = dict(builtin)

    def __getitem__(self, name: str) -> Any:
        if name in self._builtin:
            module, _, attribute = self._builtin[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        return self._installed[name].load()

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self._installed  # the inherited method imports the entry

    def __iter__(self) -> Iterator[str]:
        return iter((*self._builtin, *self._installed))

    def __len__(self) -> int:
        return len(self._builtin) + len(self._installed)

    def load_class(self, name: str, base: type) -> type[Any]:
        """Return the class that is registered as ``name``.

        Args:
            name: A key.
            base: The class that all entries are subclasses of.

        Raises:
            KeyError: If there is no such key.
            TypeError: If the entry is not a subclass of ``base``.

        """
        entry = self[name]
        if not (isinstance(entry, type) and issubclass(entry, base)):
            package = ".".join(base.__module__.split(".")[:2])
            raise TypeError(f"{self.group}: {name!r} should be a subclass of {package}.{base.__name__}, got {entry!r}.")
        return entry

    @cached_property
    def _installed(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.group):
            if point.name in self._builtin or found.get(point.name, point).value != point.value:
                warnings.warn(
                    f"The entry point {point.name!r} of {self.group} ({point.value}) is ignored: the name is taken.",
                    stacklevel=2,
                )
            else:
                found[point.name] = point
        return found
