"""Read what the runs of a benchmark have written: ledgers, logs, results and batches."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lightning_green.run.save_limits import EPOCHS_ONLY, METERED_ONLY

STOPS = ("paused", "interrupted", "failed")


def json_lines(path: Path, begin: str = "") -> list[Any]:
    """Return the records of a file of JSON lines; none if there is no file.

    Args:
        path: The file. A kill may have cut its last line.
        begin: Start of each record. If given, a record is also found in a line that begins with the rest of a cut one.

    """
    found: list[Any] = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line[max(line.rfind(begin), 0) :] if begin else line))
        except ValueError:  # noqa: PERF203 - a cut line
            continue
    return found


def ledger_events(folder: Path) -> list[dict[str, Any]]:
    """Return the events of all ledgers below a directory; `ledger` is the path of the ledger."""
    paths = sorted(folder.rglob("ledger.*.jsonl"))
    return [{**event, "ledger": str(path)} for path in paths for event in json_lines(path)]


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def is_stop(event: dict[str, Any]) -> bool:
    """Return whether an event is part of a stop: the end of a fit that is not finished, or its last checkpoint."""
    return event["event"] in STOPS or (event["event"] == "checkpoint" and event.get("reason") != "periodic")


def reported_before_stop(events: Iterable[dict[str, Any]]) -> str:
    """Return the message of a fit that is saved between epochs only, or not at all; an empty string if there is none.

    It counts only before the first stop of its fit: one of `is_stop`, or a kill, after which the next attempt begins.

    Args:
        events: Events of `ledger_events`, in their order.

    """
    stopped: set[tuple[Any, Any]] = set()
    attempts: dict[tuple[Any, Any], Any] = {}
    for event in events:
        fit = event.get("ledger"), event.get("fit")
        if is_stop(event) or attempts.setdefault(fit, event.get("attempt")) != event.get("attempt"):
            stopped.add(fit)
        reason = event.get("reason") or ""
        if fit not in stopped and reason.startswith((METERED_ONLY, EPOCHS_ONLY)):
            return reason
    return ""


def unsaved_stops_reported(events: Iterable[dict[str, Any]]) -> tuple[int, str]:
    """Return the number of stops that saved nothing after a message had reported it, and the first message.

    Args:
        events: Events of `ledger_events`, in their order.

    """
    found, first = 0, ""
    messages: dict[tuple[Any, Any], str] = {}
    saved: set[tuple[Any, ...]] = set()
    for event in events:
        fit = event.get("ledger"), event.get("fit")
        attempt, reason = (*fit, event.get("attempt")), event.get("reason") or ""
        if reason.startswith((METERED_ONLY, EPOCHS_ONLY)):
            messages.setdefault(fit, reason)
        elif event["event"] == "checkpoint" and is_stop(event):
            saved.add(attempt)
        elif event["event"] == "interrupted" and attempt not in saved and fit in messages:
            found, first = found + 1, first or messages[fit]
    return found, first


@dataclass(frozen=True)
class Outcome:
    """What a training has ended with.

    Args:
        results: Its reports, in their order.
        batches: Name of the module, epoch and number of each batch, and what is compared of it.

    """

    results: list[Any] = field(default_factory=list)
    batches: set[tuple[Any, ...]] = field(default_factory=set)

    def difference(self, other: Outcome) -> str:
        """Return in words how another outcome differs from this one; an empty string if it does not."""
        parts = []
        missing = sorted(self.batches - other.batches, key=lambda one: one[1:3])
        if missing:
            parts.append(f"{len(missing)} batches differ, the first at epoch {missing[0][1]}, batch {missing[0][2]}")
        if more := len(other.batches - self.batches) - len(missing):
            parts.append(f"{more:+d} batches")
        if len(self.results) != len(other.results):
            parts.append(f"{len(other.results)} results instead of {len(self.results)}")
        for one, found in zip(self.results, other.results, strict=False):
            names = [name for name in {**one, **found} if one.get(name) != found.get(name)]
            parts += [f"other {', '.join(names)}"] if names else []
        return "; ".join(parts)
