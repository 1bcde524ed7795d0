"""The report of ``lightning-green compress`` as the rows of a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_green.utilities.quantities import format_energy, format_grams
from lightning_green.utilities.reading import read_json

LABELS = {
    "parameters": "Parameters",
    "macs": "Multiply-accumulates",
    "weight_mb": "Weights, MB",
    "latency_ms": "Latency of one sample, ms",
    "joules_per_answer_modelled": "Energy per inference, J (modeled)",
}


def read_compression(path: Path) -> dict[str, Any]:
    """Return what a page shows of a compressed model.

    Args:
        path: The file ``report.json``.

    Returns:
        ``rows`` of (name, before, after, ratio) as text, ``warnings``, and ``cost``, a sentence.

    Raises:
        ValueError: If the file is not such a report.
        OSError: If it cannot be read.

    """
    try:
        record = read_json(path)
        before, after = _numbers(record["before"]), _numbers(record["after"])
        cost = record["compression"]
        sentence = (
            f"The compression took {float(cost['seconds']):.1f} s, {format_energy(cost['kwh'])} and "
            f"{format_grams(cost['gco2e'])}."
        )
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a report of `lightning-green compress` ({error!r:.80}).") from error
    rows = [_row(name, before[name], after.get(name)) for name in before]
    return {"rows": rows, "warnings": warnings(before, after), "cost": sentence}


def warnings(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """Return a sentence for each figure that a compression was meant to lower and has not."""
    found = []
    for name, what in (("latency_ms", "slower"), ("weight_mb", "larger")):
        if name in before and name in after and after[name] > before[name]:
            found.append(
                f"The compressed model is {what} than the original: {LABELS[name]} {after[name]:.4g} instead of "
                f"{before[name]:.4g}."
            )
    return found


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in record.items() if isinstance(value, (int, float))}


def _row(name: str, before: float, after: float | None) -> tuple[str, str, str, str]:
    label = LABELS.get(name, name)
    if after is None:
        return label, f"{before:,.6g}", "–", ""
    return label, f"{before:,.6g}", f"{after:,.6g}", f"{after / before:.3f}" if before else ""
