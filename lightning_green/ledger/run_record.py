"""The form of ``run.json``, which may contain anything when it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from lightning_green.utilities.clock import clock_from_spec

Check = Callable[[Any], bool]

MAX_NUMBER = 100_000
"""Highest number of a fit, a node or a start of a run."""


def is_text(value: Any) -> bool:
    """Return whether a value is text."""
    return isinstance(value, str)


def is_count(value: Any) -> bool:
    """Return whether a value is an integer from 0."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER


def is_mapping(value: Any) -> bool:
    """Return whether a value is an object of JSON."""
    return isinstance(value, dict)


def is_aware_time(value: Any) -> bool:
    """Return whether a value is a time in ISO 8601 with an offset."""
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def list_of(check: Check) -> Check:
    """Return a check for a list whose items all pass ``check``."""
    return lambda value: isinstance(value, list) and all(map(check, value))


def mapping_of(check: Check) -> Check:
    """Return a check for an object whose values all pass ``check``."""
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def optional(check: Check) -> Check:
    """Return a check that None passes as well."""
    return lambda value: value is None or check(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def is_clock(value: Any) -> bool:
    """Return whether a value is the specification of a clock."""
    try:
        return isinstance(value, str) and bool(clock_from_spec(value))
    except (ValueError, OverflowError):
        return False


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0.0 <= value < 1e12


def _is_fit_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 8 and int(name) <= MAX_NUMBER


_INVOCATION: dict[str, Check] = {
    "script": is_text,
    "arguments": list_of(is_text),
    "directory": is_text,
    "variables": mapping_of(is_text),
    "simulated": _is_flag,
}
_PROCESS: dict[str, Check] = {
    "process": is_mapping,
    "attempt": is_count,
    "continuing": _is_flag,
    "claimed": list_of(is_count),
}
_OPTIMIZATION: dict[str, Check] = {"optimizers": list_of(lambda one: is_mapping(one) and "groups" in one)}
_GIVEN: dict[str, Check] = {"path": optional(is_text), "at": _is_time}
_FIT: dict[str, Check] = {
    "identity": is_mapping,
    "weights": is_text,
    "thread": is_text,
    "first_start": is_aware_time,
    "optimization": is_mapping,
    "data": is_mapping,
    "ckpt_path": is_mapping,
    "wandb_folders": list_of(is_text),
}
_RECORD: dict[str, Check] = {
    "run_id": is_text,
    "invocation": is_mapping,
    "claimed_in": optional(is_text),
    "environment": optional(mapping_of(is_text)),
    "clock": is_clock,
    "loggers": is_mapping,
    "index": is_count,
    "fits": mapping_of(is_mapping),
    "script_process": is_mapping,
}


def check_record(record: Any) -> None:
    """Check the types of the values in ``run.json`` that this version reads.

    Args:
        record: Content of the file.

    Raises:
        ValueError: If a value has another type; the message names it.

    """
    _check(record, _RECORD, "", required=("run_id",))
    if "invocation" in record:
        _check(record["invocation"], _INVOCATION, "invocation.", required=tuple(_INVOCATION))
    if process := record.get("script_process"):
        _check(process, _PROCESS, "script_process.", required=("claimed",))
        if "process" in process:
            _check(process, _PROCESS, "script_process.", required=tuple(_PROCESS))
    for number, fit in record.get("fits", {}).items():
        if not _is_fit_number(number):
            raise ValueError(f"`fits` should contain numbers of fits, got {number[:40]!r}")
        _check(fit, _FIT, f"fits.{number}.")
        if "ckpt_path" in fit:
            _check(fit["ckpt_path"], _GIVEN, f"fits.{number}.ckpt_path.", required=tuple(_GIVEN))
        if fit.get("optimization"):
            _check(fit["optimization"], _OPTIMIZATION, f"fits.{number}.optimization.", required=tuple(_OPTIMIZATION))


def _check(record: Any, checks: Mapping[str, Check], where: str, required: tuple[str, ...] = ()) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"`{where.rstrip('.')}` should be an object")
    for name, check in checks.items():
        if name in record:
            if not check(record[name]):
                raise ValueError(f"`{where}{name}` has the value {record[name]!r:.80}")
        elif name in required:
            raise ValueError(f"`{where}{name}` is missing")
