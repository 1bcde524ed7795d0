"""Where a training may be paused: between any two batches, between epochs only, or never."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from lightning_green.run.identity import distinguishing_variables, run_name
from lightning_green.utilities.files import write_json

PAUSE_RULE_VARIABLE = "LIGHTNING_GREEN_PAUSE_RULE"
"""Environment variable with which the supervisor passes the rule to a training, as ``<where>: <reason>``."""

_VERSION = 1


class PauseAt(str, Enum):
    """Where a training may be paused."""

    BATCH = "batch"
    EPOCH = "epoch"
    NEVER = "never"


@dataclass(frozen=True)
class PauseRule:
    """Where a training may be paused so that it resumes exactly, and why not elsewhere.

    Args:
        at: Boundaries at which it is paused.
        reason: Why it is not paused elsewhere; empty for ``PauseAt.BATCH``.

    """

    at: PauseAt = PauseAt.BATCH
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.at.value}: {self.reason}"

    def join(self, other: PauseRule) -> PauseRule:
        """Return the stricter of two rules."""
        order = list(PauseAt)
        return max(self, other, key=lambda rule: order.index(rule.at))

    @classmethod
    def from_environment(cls) -> PauseRule:
        """Return the rule that the supervisor passes to this process."""
        where, _, reason = os.environ.get(PAUSE_RULE_VARIABLE, "").partition(": ")
        return cls(PauseAt(where), reason) if where in {one.value for one in PauseAt} else cls()


def check_file(command: Sequence[str], directory: str | None = None) -> Path:
    """Return the file of the last check of a command.

    Args:
        command: The training command.
        directory: Its working directory; the one of this process if None.

    """
    where = directory or os.getcwd()
    name = run_name(command, where, variables=distinguishing_variables())
    return Path(where) / "lightning_green_runs" / "checks" / f"{name}.json"


def write_check(command: Sequence[str], rule: PauseRule | None) -> None:
    """Record the result of a check of a command in this directory; None removes the record of an earlier one."""
    path = check_file(command)
    if rule is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"version": _VERSION, "pause_at": rule.at.value, "reason": rule.reason, "scripts": _digest(command)}
    write_json(path, record)


def read_check(command: Sequence[str]) -> tuple[PauseRule | None, bool]:
    """Return the result of the last check of a command, and whether its scripts are those that were checked.

    Returns:
        The rule, or None if the command has not been checked or its record cannot be read; and whether it applies.

    """
    try:
        record = json.loads(check_file(command).read_text(encoding="utf-8"))
        rule = PauseRule(PauseAt(record["pause_at"]), str(record["reason"]))
        return rule, record["version"] == _VERSION and record["scripts"] == _digest(command)
    except (OSError, ValueError, KeyError, TypeError):
        return None, False


def _digest(command: Sequence[str]) -> str:
    """Return a digest of the files in a command line, such as the training script."""
    total = hashlib.sha256()
    for word in command[:20]:
        path = Path(word)
        if path.suffix in (".py", ".sh", ".yaml", ".yml") and path.is_file():
            total.update(path.read_bytes())
    return total.hexdigest()
