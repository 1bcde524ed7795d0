"""The limits that Lightning measures by wall time: ``Timer``, validation and checkpoint intervals, throughput."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint, ThroughputMonitor, Timer

from lightning_green._lightning.namespaces import both


def validation_interval(trainer: pl.Trainer) -> float | None:
    """Return the seconds between two validations; None if ``val_check_interval`` is not a time."""
    seconds: float | None = getattr(trainer, "_val_check_time_interval", None)
    return seconds


def elapsed_times(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the seconds since the last validation and the last checkpoints, which Lightning does not save."""
    now, validated = time.monotonic(), getattr(trainer, "_last_val_time", None)
    found = [callback for callback in trainer.callbacks if isinstance(callback, both(ModelCheckpoint))]  # type: ignore[attr-defined]
    return {
        "validation": None if validated is None else now - validated,
        "checkpoints": [None if one._last_time_checked is None else now - one._last_time_checked for one in found],
    }


def set_elapsed_times(trainer: pl.Trainer, saved: dict[str, Any]) -> None:
    """Set the result of ``elapsed_times``, so that a pause and a restart do not count."""
    now = time.monotonic()
    if saved["validation"] is not None:
        trainer._last_val_time = now - saved["validation"]  # type: ignore[attr-defined]
    found = [callback for callback in trainer.callbacks if isinstance(callback, both(ModelCheckpoint))]  # type: ignore[attr-defined]
    for callback, elapsed in zip(found, saved["checkpoints"], strict=False):
        if elapsed is not None:
            callback._last_time_checked = now - elapsed


def exclude_pause(trainer: pl.Trainer, seconds: float) -> None:
    """Exclude the ``seconds`` of a pause from every limit that Lightning measures by wall time."""
    if getattr(trainer, "_last_val_time", None) is not None:  # set only with validation
        trainer._last_val_time += seconds  # type: ignore[attr-defined]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, both(Timer)):
            for stage, start in callback._start_time.items():
                if start is not None and callback._end_time.get(stage) is None:
                    callback._start_time[stage] = start + seconds
        elif isinstance(callback, both(ModelCheckpoint)) and callback._last_time_checked is not None:
            callback._last_time_checked += seconds
        elif isinstance(callback, both(ThroughputMonitor)):
            for stage in callback._t0s:
                callback._t0s[stage] += seconds
