"""Callbacks that the environment adds to the Trainers of a script nobody edits."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lightning_green._lightning.namespaces import both
from lightning_green.callbacks._green import GreenCallback
from lightning_green.callbacks.carbon_scheduler import CarbonScheduler
from lightning_green.callbacks.emissions_tracker import EmissionsTracker
from lightning_green.utilities.text import printable

SETTING_VARIABLE = "LIGHTNING_GREEN"
GRID_VARIABLE = "LIGHTNING_GREEN_GRID"
DEADLINE_VARIABLE = "LIGHTNING_GREEN_DEADLINE"
METER_VARIABLE = "LIGHTNING_GREEN_METER"
_LONGEST = 300  # characters of an error of another package


def callbacks_from_environment(environment: Mapping[str, str] = os.environ) -> list[pl.Callback]:
    """Return the callbacks that ``LIGHTNING_GREEN`` adds to a Trainer.

    ``1`` adds an ``EmissionsTracker`` and a ``CarbonScheduler`` with the grid, the deadline and the meter of the
    environment; any other value is the path of a YAML file with a list of callbacks. Those of this package that take
    part in a run are not used if the script has one of the same class.

    Args:
        environment: Environment variables.

    Raises:
        ValueError: If the value, the file or an argument is wrong.
        ModuleNotFoundError: If there is a file and jsonargparse is not installed.

    """
    setting = environment.get(SETTING_VARIABLE, "")
    if setting in ("", "0"):
        return []
    found = list(_defaults(environment) if setting == "1" else _of_file(Path(setting)))
    for callback in found:
        if isinstance(callback, GreenCallback):
            callback.added_by = f"{SETTING_VARIABLE}={printable(setting)}"
    return found


def _defaults(environment: Mapping[str, str]) -> Iterator[pl.Callback]:
    grid, deadline = environment.get(GRID_VARIABLE) or None, environment.get(DEADLINE_VARIABLE) or None
    meter = environment.get(METER_VARIABLE) or "auto"
    try:
        yield EmissionsTracker(meter=_number_or_text(meter), grid=_number_or_text(grid))
        yield CarbonScheduler(deadline=deadline)
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"The environment has a wrong setting of Lightning Green. {error}") from error


def _number_or_text(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _of_file(path: Path) -> Iterator[pl.Callback]:
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ValueError(
            f"{SETTING_VARIABLE} should be 1 or the path of a YAML file with callbacks, got {str(path)!r}: {reason}."
        ) from error
    try:
        jsonargparse = importlib.import_module("jsonargparse")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{SETTING_VARIABLE}={path} requires jsonargparse; run pip install 'lightning-green[cli]'."
        ) from None
    try:
        entries = jsonargparse.get_loader("yaml")(text)
    except Exception as error:
        raise ValueError(f"{path} is not valid YAML: {_one_line(error)}.") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} should contain a list of callbacks with `class_path` and `init_args`.")
    for number, entry in enumerate(entries, 1):
        yield _build(jsonargparse, entry, f"{path}, callback {number}")


def _build(jsonargparse: Any, entry: Any, place: str) -> pl.Callback:
    if not isinstance(entry, dict) or not isinstance(entry.get("class_path"), str):
        raise ValueError(f"{place} should have a `class_path`, got {printable(str(entry)[:80])!r}.")
    errors: list[Exception] = []
    for kind in both(pl.Callback):
        parser = jsonargparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--callback", type=kind)
        try:
            parsed = parser.parse_object({"callback": entry})
        except Exception as error:  # noqa: BLE001 - also of the import of the class
            errors.append(error)
            continue
        try:
            made: pl.Callback = getattr(parser, "instantiate", parser.instantiate_classes)(parsed).callback
        except Exception as error:
            raise ValueError(f"{place} ({entry['class_path']}): {_one_line(error)}") from error
        return made
    raise ValueError(f"{place} ({entry['class_path']}): {_one_line(errors[0])}") from errors[0]


def _one_line(error: Exception) -> str:
    lines = [line.strip().rstrip(":") for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith(("Parser key", "Problem with given class_path"))]
    return printable(": ".join(kept)[:_LONGEST])
