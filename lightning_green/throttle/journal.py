"""The original states of throttled devices, in the run directory."""

from __future__ import annotations

import glob
import json
import os
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lightning_green.utilities.files import write_json
from lightning_green.utilities.trusted_files import UntrustedFileError, read_own

_MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class JournalEntry:
    """The state of one device before its first change.

    Args:
        kind: ``Actuator.kind`` of the actuator.
        arguments: Constructor arguments of the actuator, as JSON.
        state: Original state of the device, as JSON.

    """

    kind: str
    arguments: dict[str, Any]
    state: dict[str, Any]


_FIELDS = {field.name for field in fields(JournalEntry)}


class Journal:
    """The file ``throttle.<host>[.<node>].json`` in the run directory.

    The file exists only while a device of this node is throttled. It survives ``kill -9``. It is believed only if it
    is a regular file of this user (or root) that no other user can write.

    Args:
        run_dir: Run directory.
        node: Number of this node, which separates nodes with the same host name; empty for a run with one node.

    """

    def __init__(self, run_dir: Path, node: str = "") -> None:
        name = f"{socket.gethostname()}.{node}" if node else socket.gethostname()
        self.path = Path(run_dir) / f"throttle.{name}.json"

    def siblings(self) -> list[Journal]:
        """Return the journals that this machine wrote under other node numbers; a restart may renumber the nodes."""
        found = []
        for path in self.path.parent.glob(f"throttle.{glob.escape(socket.gethostname())}.*json"):
            journal = Journal(self.path.parent)
            journal.path = path
            with suppress(OSError):
                if path != self.path and journal._load().get("boot") == _boot_id():
                    found.append(journal)
        return found

    def save(self, kind: str, arguments: dict[str, Any], state: dict[str, Any]) -> None:
        """Record the original state of a device durably. An existing entry of the same device is older and is kept.

        Raises:
            OSError: If the file cannot be written. The device must not be changed then.

        """
        try:
            content = self._load()
        except UntrustedFileError:  # it is replaced
            content = {"entries": {}}
        entry = JournalEntry(kind, arguments, state)
        content["entries"].setdefault(_key(kind, arguments), asdict(entry))
        content |= {"pid": os.getpid(), "started": _start_time(os.getpid()), "boot": _boot_id()}
        write_json(self.path, content, private=True)

    def forget(self, kind: str, arguments: dict[str, Any]) -> None:
        """Remove the entry of a restored device. Removing the last entry deletes the file."""
        content = self._load()
        content["entries"].pop(_key(kind, arguments), None)
        if content["entries"]:
            write_json(self.path, content, private=True)
        else:
            self.path.unlink(missing_ok=True)

    def abandoned(self) -> list[JournalEntry]:
        """Return the entries of a process that no longer runs.

        A reboot resets the devices, so a journal from before the last boot is deleted and has no entries.

        Raises:
            OSError: If the file cannot be read, or is not believed.

        """
        content = self._load()
        pid = content.get("pid")
        started = _start_time(pid) if isinstance(pid, int) else None
        if not content["entries"] or (started is not None and started == content.get("started")):
            return []
        if content.get("boot") != _boot_id():
            self.path.unlink(missing_ok=True)
            return []
        return [JournalEntry(**{name: entry[name] for name in _FIELDS}) for entry in content["entries"].values()]

    def _load(self) -> dict[str, Any]:
        try:
            content = json.loads(read_own(self.path, _MOST_BYTES))
        except FileNotFoundError:
            content = None
        except (ValueError, RecursionError):  # written by another program: our own writes are atomic
            content = None
        if not isinstance(content, dict) or not isinstance(content.get("entries"), dict):
            return {"entries": {}}
        entries = content["entries"].items()
        complete = {key: entry for key, entry in entries if _is_complete(entry)}
        return content | {"entries": complete}


def _is_complete(entry: Any) -> bool:
    if not isinstance(entry, dict) or not entry.keys() >= _FIELDS:
        return False
    return isinstance(entry["kind"], str) and all(isinstance(entry[name], dict) for name in ("arguments", "state"))


def _key(kind: str, arguments: dict[str, Any]) -> str:
    return f"{kind} {json.dumps(arguments, sort_keys=True)}"


def _start_time(pid: int) -> str | None:
    """Return the start time of a process in ticks since boot, which distinguishes it from a later one with its pid."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    values = text.rpartition(")")[2].split()
    return None if values[0] in ("Z", "X") else values[19]


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
