"""An on-disk memory of answers and failures, shared by every process of a machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import filelock

from lightning_green.utilities.files import write_json
from lightning_green.utilities.http.errors import ServiceError, UnreachableError

FOLDER_VARIABLE = "LIGHTNING_GREEN_CACHE_DIR"
_VERSION = 1
_LOCK_SECONDS = 45.0
_LONGEST_PAUSE = timedelta(minutes=30)
_LATEST = 7258118400.0  # the year 2200; what is no time at all would never fall due


@dataclass(frozen=True)
class Entry:
    """What is known about one request.

    Args:
        body: The last good JSON body, or None.
        fetched_at: When it was read, in seconds since the epoch.
        not_before: When to ask again, in seconds since the epoch.
        error: What went wrong the last time; empty after a success.
        failures: Failures in a row.
        validators: ``etag`` and ``last_modified`` of the body.

    """

    body: Any = None
    fetched_at: float | None = None
    not_before: float = 0.0
    error: str = ""
    failures: int = 0
    validators: dict[str, str] = field(default_factory=dict)

    def due(self, now: float, longest: float) -> bool:
        """Return whether to ask at ``now``; a time to ask that lies beyond ``longest`` comes from a wrong clock."""
        return now >= self.not_before or self.not_before > now + longest

    def succeeded(self, body: Any, now: float, not_before: float, validators: Mapping[str, str]) -> Entry:
        """Return the entry after a good answer."""
        return Entry(body, now, not_before, validators=dict(validators))

    def failed(self, error: ServiceError, now: float) -> Entry:
        """Return the entry after a failure: the last good body stays, and the source is left alone for a while.

        This is the circuit breaker: the pause doubles with each failure in a row that time may heal, and every process
        of the machine keeps to it.
        """
        pause = error.pause
        if error.retry:
            pause = max(pause, min(pause * 2 ** min(self.failures, 10), _LONGEST_PAUSE))
        if error.retry_after is not None:
            pause = max(error.retry_after, timedelta(seconds=1))
        return replace(self, error=str(error), failures=self.failures + 1, not_before=now + pause.total_seconds())


class Cache:
    """Entries by key, in files that are replaced whole, each with a lock of its own.

    Where the folder cannot be written to, the entries live in this process alone and :attr:`problem` says so.

    Args:
        folder: Where; None for ``LIGHTNING_GREEN_CACHE_DIR``, or else ``lightning-green/grid`` in the user's cache.

    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()
        self.problem: str | None = None
        self._memory: dict[str, Entry] = {}

    def read(self, key: str) -> Entry:
        """Return the entry of ``key``, an empty one if there is none; never waits for a lock."""
        path = self.folder / f"{key}.json"
        try:
            data = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):  # none yet, or a file of which only a part was written
            return self._memory.get(key, Entry())
        return _entry(data) or self._memory.get(key, Entry())

    def write(self, key: str, entry: Entry) -> None:
        """Keep ``entry``; other processes see the whole of it or nothing."""
        self._memory[key] = entry
        content = {"version": _VERSION, **asdict(entry)}
        try:
            write_json(self.folder / f"{key}.json", content, indent=None, durable=False, private=True)
        except OSError as error:
            self._degrade(error)
        else:
            self._memory.pop(key, None)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold the lock of ``key``: of many processes that want the same answer, one asks.

        Raises:
            UnreachableError: If another process holds it for too long.

        """
        lock: filelock.BaseFileLock | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = filelock.FileLock(self.folder / f"{key}.lock", timeout=_LOCK_SECONDS)
            lock.acquire()
        except filelock.Timeout:
            raise UnreachableError("another process of this machine has been asking the source for too long") from None
        except (OSError, NotImplementedError) as error:  # no such folder may be made, or it knows no locks
            self._degrade(error)
            lock = None
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def _degrade(self, error: BaseException) -> None:
        if self.problem is None:
            self.problem = (
                f"The cache folder {self.folder} cannot be written to ({error}); each process asks for itself."
            )


def default_folder() -> Path:
    """Return the cache folder of this user."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "lightning-green" / "grid"


def cache_key(identity: str, credential: str = "") -> str:
    """Return the key of a request.

    Args:
        identity: What tells the request from others.
        credential: A digest of the credential, so that a new one does not wait for an old one's failure.

    """
    return hashlib.sha256(json.dumps([identity, credential]).encode()).hexdigest()[:32]


def _entry(data: Any) -> Entry | None:
    """Return what a file holds, None where it cannot be what :meth:`Cache.write` wrote."""
    if not isinstance(data, dict) or data.get("version") != _VERSION:
        return None
    try:
        fetched = data.get("fetched_at")
        entry = Entry(
            body=data.get("body"),
            fetched_at=None if fetched is None else float(fetched),
            not_before=float(data.get("not_before", 0.0)),
            error=str(data.get("error", "")),
            failures=int(data.get("failures", 0)),
            validators={str(name): str(value) for name, value in dict(data.get("validators", {})).items()},
        )
    except (TypeError, ValueError, OverflowError):
        return None
    times = (entry.not_before, entry.fetched_at or 0.0)
    return entry if all(0.0 <= at < _LATEST for at in times) and entry.failures >= 0 else None
