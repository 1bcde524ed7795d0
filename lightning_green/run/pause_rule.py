"""Where a training may be paused: between any two batches, between epochs only, or never."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from lightning_green.run.identity import run_name
from lightning_green.utilities.files import write_json
from lightning_green.utilities.reading import read_json

PAUSE_RULE_VARIABLE = "LIGHTNING_GREEN_PAUSE_RULE"
"""Environment variable with which the supervisor passes the rule to a training, as ``<where>: <reason>``."""

_VERSION = 1
_MAX_BYTES = 10_000_000
_OF_DATA = {".ckpt", ".pt", ".pth", ".csv", ".npy", ".npz", ".parquet"}


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


def check_file(command: Sequence[str], directory: str = "") -> Path:
    """Return the file with the result of the last check of a command in a directory, by default the current one."""
    return Path(directory) / "lightning_green_runs" / "checks" / f"{run_name(command, directory)}.json"


def file_digests(command: Sequence[str], files: Iterable[str], directory: str = "") -> dict[str, str]:
    """Return digests of the files of a script and of the files that its command names.

    Args:
        command: The command.
        files: Files of the script.
        directory: Directory of relative paths, by default the current one.

    """
    named = [file for word in command for file in (word, word.partition("=")[2])]  # `--config=c.yaml`
    found = {file: _digest(os.path.join(directory, file)) for file in (*files, *named)}
    return {file: digest for file, digest in found.items() if digest is not None}


def write_check(command: Sequence[str], rule: PauseRule | None, files: Mapping[str, str] | None = None) -> None:
    """Record the result of a check of a command in this directory.

    Args:
        command: The command.
        rule: Where it may be paused; None removes the record of an earlier check.
        files: Digests of the files that were checked. If one of them changes, the record does not apply any more.

    """
    path = check_file(command)
    if rule is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"version": _VERSION, "pause_at": rule.at.value, "reason": rule.reason, "files": dict(files or {})}
    write_json(path, record, private=True)


def read_check(command: Sequence[str], directory: str = "") -> tuple[PauseRule | None, bool]:
    """Return the result of the last check of a command, and whether its files are those that were checked.

    Args:
        command: The command.
        directory: Its working directory; by default the current one.

    Returns:
        The rule, or None if the command has not been checked or its record cannot be read; and whether it applies.

    """
    try:
        record = read_json(check_file(command, directory), own=True)
        rule = PauseRule(PauseAt(record["pause_at"]), str(record["reason"]))
        same = all(_digest(os.path.join(directory, file)) == digest for file, digest in record["files"].items())
        return rule, record["version"] == _VERSION and same
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, False


def _digest(file: str) -> str | None:
    """Return a digest of a file of a script; None for anything else, such as data."""
    path = Path(file)
    if not os.path.isfile(file) or path.suffix in _OF_DATA or path.stat().st_size > _MAX_BYTES:  # any word of a command
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()
