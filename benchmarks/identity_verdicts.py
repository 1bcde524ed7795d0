"""Compare the reports of a random script of `identity.py` with its reference, and read its ledgers."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from random_scripts import Scenario

STATE_EVENTS = ("started", "finished", "paused", "interrupted", "failed")
NOT_COMPARED = ("fit", "trained_steps")


@dataclass
class Ledgers:
    """What the ledgers of one script contain.

    Attributes:
        attempts: Starts of a run.
        pauses: Planned exits.
        continued: Fits that were continued from a step above 0.
        not_continued: Starts from the beginning after a saved state, in words.
        unfinished: Fits of which the last state event is not `finished`, in words.

    """

    attempts: int = 0
    pauses: int = 0
    continued: int = 0
    not_continued: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)


def read_ledgers(folder: Path) -> Ledgers:
    """Return what the ledgers below a directory contain."""
    found = Ledgers()
    for path in sorted(folder.rglob("ledger.*.jsonl")):
        records = list(_json_lines(path))
        found.attempts += len({record.get("attempt") for record in records} - {None})
        by_fit: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            if record.get("event") in (*STATE_EVENTS, "checkpoint"):
                by_fit.setdefault(str(record.get("fit")), []).append(record)
        for fit, events in by_fit.items():
            name = f"fit {fit} in {path.parent.relative_to(folder)}"
            saved, steps = False, 0
            for record in events:
                event, restored = record["event"], record.get("restored")
                if event == "started":
                    step = re.match(r"step (\d+)", str(restored))
                    steps = max(steps, int(step[1]) if step else 0)
                    if saved and not restored:
                        found.not_continued.append(f"{name} starts again at attempt {record.get('attempt')}")
                found.pauses += event == "paused"
                saved = event == "checkpoint" or (saved and event != "finished")
            found.continued += steps > 0
            states = [record["event"] for record in events if record["event"] in STATE_EVENTS]
            if states and states[-1] != "finished":
                found.unfinished.append(f"{name} ends in `{states[-1]}`")
    return found


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                yield record


def read_results(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the reports of a script by label, in the order in which they were written."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted([*folder.rglob("results.jsonl"), *folder.glob("out*.jsonl")]):
        prefix = "" if path.name == "results.jsonl" else f"{path.stem}:"
        for line in _json_lines(path):
            if "best" in line:  # an earlier attempt may have left a file of the same name
                line["best"][0] = re.sub(r"-v\d+(?=\.ckpt$)", "", line["best"][0])
            found.setdefault(prefix + line["fit"], []).append(line)
    return found


@dataclass
class Verdict:
    """How one script ended.

    Attributes:
        made: The script.
        folder: Its directory.
        counts: Verdicts, of `VERDICTS`.
        reasons: Why it is not exact, in words.
        ledgers: What its ledgers contain.
        faults: Faults that struck, by kind.
        seconds: Time that both runs took.

    """

    made: Scenario
    folder: Path
    counts: set[str] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)
    ledgers: Ledgers = field(default_factory=Ledgers)
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, count: str, reason: str) -> None:
        """Add a verdict."""
        self.counts.add(count)
        self.reasons.append(f"{count}: {reason}")

    def compare(self, reference: dict[str, list[dict[str, Any]]], live: dict[str, list[dict[str, Any]]]) -> None:
        """Compare each report with the one of the reference; call it after `failed` is known."""
        for label in live.keys() - reference.keys():
            self.add("mistaken", f"{label} is not in the reference")
        for label, (wanted, *_) in reference.items():
            lines = live.get(label, [])
            if not lines and "failed" not in self.counts:
                self.add("skipped", f"{label} has no report")
                self.add("false_success", f"{label} has no report")
            for number, line in enumerate(lines, start=1):
                names = [name for name in wanted if name not in NOT_COMPARED and wanted[name] != line.get(name)]
                if names:
                    others = [other for other, (one, *_) in reference.items() if _same_weights(one, line)]
                    whose = f"; its weights are those of {', '.join(others)}" if "weights" in names and others else ""
                    self.add("mistaken", f"report {number} of {label} differs in {', '.join(names)}{whose}")


def _same_weights(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return "weights" in one and one["weights"] == other.get("weights")
