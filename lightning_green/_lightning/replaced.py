"""Methods of single objects of Lightning that are replaced for the time of a fit."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import partial
from typing import Any

from typing_extensions import Self


class ReplacedMethod(partial[Any]):
    """A function in place of a method of one object. In a copy or a pickle of the object it is the original method.

    Args:
        owner: The object.
        name: Name of the method.
        function: Called instead; directly, because the loops call it at every batch.

    """

    def __new__(cls, owner: Any, name: str, function: Callable[..., Any]) -> Self:
        replaced = super().__new__(cls, function)
        replaced._owner, replaced._name = owner, name
        return replaced

    _owner: Any
    _name: str

    def __reduce__(self) -> tuple[Any, ...]:
        return _bind, (getattr(type(self._owner), self._name), self._owner)


def _bind(function: Callable[..., Any], owner: Any) -> types.MethodType:
    return types.MethodType(function, owner)


def replace_method(owner: Any, name: str, function: Callable[..., Any]) -> Callable[[], None]:
    """Replace a method of one object; return a function that removes the replacement."""
    owner.__dict__[name] = ReplacedMethod(owner, name, function)
    return partial(owner.__dict__.pop, name, None)


def undo_all(*functions: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls all of them."""

    def undo() -> None:
        for function in functions:
            function()

    return undo
