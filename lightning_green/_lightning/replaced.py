"""Methods of single objects of Lightning that are replaced for the time of a fit."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import partial
from typing import Any


class ReplacedMethod:
    """A function in place of a method of one object. In a copy or a pickle of the object it is the original method.

    Args:
        owner: The object.
        name: Name of the method.
        function: Called instead.

    """

    def __init__(self, owner: Any, name: str, function: Callable[..., Any]) -> None:
        self._owner, self._name, self._function = owner, name, function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

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
