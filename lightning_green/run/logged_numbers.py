"""The numbers that a training has logged, for the ledger."""

from __future__ import annotations

from numbers import Real

import lightning.pytorch as pl
import torch

MAX_NAMES = 32
_MAX_NAME = 100


def logged_numbers(trainer: pl.Trainer) -> dict[str, float]:
    """Return the current values of ``trainer.callback_metrics`` that are single numbers, by name.

    At most ``MAX_NAMES`` of them, those of a validation (``val...``) first. Call it on all ranks: reading a metric may
    synchronize it.
    """
    metrics = trainer.callback_metrics
    names = sorted(metrics, key=lambda name: (not name.startswith("val"), name))
    found: dict[str, float] = {}
    for name in names:
        value = metrics[name]
        is_number = isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex()
        if (is_number or isinstance(value, Real)) and len(found) < MAX_NAMES:
            found[name[:_MAX_NAME]] = float(value)
    return found
