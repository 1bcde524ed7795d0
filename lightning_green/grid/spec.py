"""Signals from their specs, the form in which they are stored and passed to another process."""

from __future__ import annotations

import importlib
from typing import Any

from lightning_green.grid.signal import GridSignal, public_path


def grid_from_spec(spec: dict[str, Any]) -> GridSignal:
    """Return the signal that ``GridSignal.spec`` describes.

    Args:
        spec: ``{"class_path": "package.module.Class", "init_args": {...}}``.

    Raises:
        ValueError: If the spec has another form or its class is not a subclass of ``GridSignal``.

    Examples:
        >>> spec = {"class_path": "lightning_green.grid.ConstantSignal", "init_args": {"intensity": 381.0}}
        >>> grid_from_spec(spec).describe()
        'constant 381 gCO2e/kWh, average/lifecycle, zone none'

    """
    path, arguments = spec.get("class_path"), spec.get("init_args", {})
    if not isinstance(path, str) or "." not in path or not isinstance(arguments, dict):
        raise ValueError(
            f"`grid` as a dict should contain `class_path` (a string) and `init_args` (a dict), got {spec!r}."
        )
    module, _, name = public_path(path).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"`grid` names the class {path}, but there is no module {error.name}. Install it or fix the path."
        ) from error
    if not (isinstance(found, type) and issubclass(found, GridSignal)):
        raise ValueError(f"`grid` should name a subclass of lightning_green.grid.GridSignal, got {path}.")
    return found(**arguments)
