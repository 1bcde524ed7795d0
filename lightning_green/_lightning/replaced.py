"""Methods of single objects of Lightning that are replaced for the time of a fit."""

from __future__ import annotations

import types
from collections.abc import Callable
from contextlib import ExitStack
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
    """Replace a method of one object; return a function that removes the replacement.

    The attribute is then as before: absent, or a replacement by another package.
    """
    before = owner.__dict__.get(name)
    owner.__dict__[name] = ReplacedMethod(owner, name, function)

    def undo() -> None:
        if before is None:
            owner.__dict__.pop(name, None)
        else:
            owner.__dict__[name] = before

    return undo


def call_all(*functions: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls all of them, the last first, also if one raises."""
    stack = ExitStack()
    for function in functions:
        stack.callback(function)
    return stack.close
