"""Signals in the record of a paused run, from which the supervisor makes a new plan.

A record is untrusted input. It selects among the classes of this package and sets arguments that name no file and no
address. A process of this user signs the other arguments, so the supervisor uses those that the training itself used.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

from lightning_green.grid.signal import GridSignal, public_path
from lightning_green.utilities.text import printable
from lightning_green.utilities.user_key import is_keyed_hash, keyed_hash

_PURPOSE = "grid"
_PACKAGE = "lightning_green.grid."
_MOST_PARTS = 10

CLASSES: dict[str, tuple[str, frozenset[str]]] = {
    "AnnualMean": ("lightning_green.grid.providers.annual", frozenset({"zone"})),
    "CarbonAwareSdkSignal": ("lightning_green.grid.providers.carbon_aware_sdk", frozenset()),
    "ChainSignal": ("lightning_green.grid.chain", frozenset({"signal", "fallback"})),
    "ConstantSignal": ("lightning_green.grid.providers.constant", frozenset({"intensity", "zone", "kind"})),
    "ElectricityMapsSignal": (
        "lightning_green.grid.providers.electricity_maps",
        frozenset({"zone", "scope", "max_age"}),
    ),
    "EnergiDataServiceSignal": ("lightning_green.grid.providers.energi_data_service", frozenset({"zone", "max_age"})),
    "EnergyChartsSignal": ("lightning_green.grid.providers.energy_charts", frozenset({"zone", "kind", "max_age"})),
    "FileSignal": (
        "lightning_green.grid.providers.file",
        frozenset({"zone", "kind", "resolution", "every", "max_age"}),
    ),
    "HttpJsonSignal": ("lightning_green.grid.providers.http_json", frozenset()),
    "NesoSignal": ("lightning_green.grid.providers.neso", frozenset({"region", "postcode", "max_age"})),
    "PrometheusSignal": ("lightning_green.grid.providers.prometheus", frozenset()),
    "TraceSignal": ("lightning_green.grid.providers.trace", frozenset({"zone", "kind", "column"})),
    "TypicalDay": ("lightning_green.grid.providers.typical_day", frozenset({"zone"})),
    "WattTimeSignal": ("lightning_green.grid.providers.watttime", frozenset({"zone", "max_age"})),
}
"""Module of each class that a record may name, and the arguments that it may set without a signature."""


def spec_for_record(signal: GridSignal | None) -> dict[str, Any] | None:
    """Return the spec of a signal for a record, signed if its arguments name a file or an address."""
    spec = None if signal is None else signal.spec()
    try:
        if spec is None or _unsigned_problem(spec) is None:
            return spec
    except ValueError:  # a class of the script, which the supervisor does not import
        return spec
    return {**spec, "signature": keyed_hash(_PURPOSE, _text(spec))}


def spec_digest(spec: Mapping[str, Any] | None) -> str:
    """Return a digest of a signal's spec, which distinguishes signals of one name; empty if it has none."""
    if spec is None:
        return ""
    return hashlib.sha256(json.dumps(spec, sort_keys=True, default=str).encode()).hexdigest()[:8]


def grid_from_record(spec: Mapping[str, Any]) -> GridSignal:
    """Return the signal that a record describes.

    Args:
        spec: What ``spec_for_record`` returned, or anything else.

    Raises:
        ValueError: If it names another class, or if arguments that name a file or an address are not signed.
        OSError: If a trace file cannot be read.

    Examples:
        >>> spec = {"class_path": "lightning_green.grid.ConstantSignal", "init_args": {"intensity": 381.0}}
        >>> grid_from_record(spec).describe()
        'constant 381 gCO2e/kWh, average/lifecycle, zone none'

    """
    problem = _unsigned_problem(spec)
    if problem is not None and not is_keyed_hash(spec.get("signature"), _PURPOSE, _text(spec)):
        raise ValueError(problem)
    return _build(spec)


def _build(spec: Any) -> GridSignal:
    """Return the signal of a spec that is safe or signed. The class is one of ``CLASSES`` in either case."""
    cls, arguments = _class(spec), dict(spec.get("init_args", {}))
    if cls.__name__ == "ChainSignal":
        arguments = {
            "signal": _build(arguments["signal"]),
            "fallback": [_build(part) for part in arguments["fallback"]],
        }
    try:
        return cls(**arguments)
    except (TypeError, AttributeError, ArithmeticError) as error:  # an argument of another type
        raise ValueError(
            f"the record of the pause does not describe a {cls.__name__} ({type(error).__name__})"
        ) from error


def _class(spec: Any) -> type[GridSignal]:
    path = spec.get("class_path") if isinstance(spec, Mapping) else None
    public = public_path(path) if isinstance(path, str) else ""
    name = public.removeprefix(_PACKAGE) if public.startswith(_PACKAGE) else ""
    if name not in CLASSES or not isinstance(spec.get("init_args", {}), Mapping):
        raise ValueError(
            f"the record of the pause names the grid source {_short(path)}, and only sources of Lightning Green are "
            "used"
        )
    return getattr(importlib.import_module(CLASSES[name][0]), name)  # type: ignore[no-any-return]


def _unsigned_problem(spec: Any, depth: int = 0) -> str | None:
    """Return why a spec is not used without a signature; None if it names no file and no address.

    Raises:
        ValueError: If it is not used in any case.

    """
    cls = _class(spec)
    defaults = inspect.signature(cls).parameters
    arguments = spec.get("init_args", {})
    for name, value in arguments.items():
        if name in CLASSES[cls.__name__][1]:
            continue
        if name not in defaults or value != defaults[name].default:
            return (
                f"the record of the pause names `{_short(name)}` of {cls.__name__}, and no process of this user has "
                "signed it"
            )
    if cls.__name__ != "ChainSignal":
        return None
    fallback = arguments.get("fallback")
    parts = [arguments.get("signal"), *(fallback if isinstance(fallback, list) else [None])]
    if depth or len(parts) > _MOST_PARTS:
        raise ValueError("the record of the pause names a chain of grid sources that is nested or too long")
    return next((problem for part in parts if (problem := _unsigned_problem(part, depth + 1))), None)


def _text(spec: Mapping[str, Any]) -> str:
    return json.dumps([spec.get("class_path"), spec.get("init_args", {})], sort_keys=True)


def _short(value: object) -> str:
    return printable(str(value)[:80])
