"""On-disk cache of answers and failures, shared by all processes of a machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import filelock

from lightning_green.utilities.files import (
    CACHE_VARIABLE,
    cache_directory,
    remove_temporary_files,
    write_json,
)
from lightning_green.utilities.http.errors import ServiceError, UnreachableError
from lightning_green.utilities.reading import UnreadableFileError, read_json
from lightning_green.utilities.trusted_files import UntrustedFileError, is_shared, make_private

_VERSION = 1
_MOST_BYTES = 50_000_000  # ten times the largest answer
_LOCK_SECONDS = 45.0
_LONGEST_PAUSE = timedelta(minutes=30)
_LATEST = 7258118400.0  # the year 2200; an entry with a later time is corrupt


@dataclass(frozen=True)
class Entry:
    """The cached state of one request.

    Args:
        body: Last usable JSON body, or None.
        fetched_at: Time at which it was fetched, in seconds since the epoch.
        not_before: Time of the next request, in seconds since the epoch.
        error: Message of the last failure; empty after a success.
        failures: Number of consecutive failures.
        validators: ``etag`` and ``last_modified`` of the body.

    """

    body: Any = None
    fetched_at: float | None = None
    not_before: float = 0.0
    error: str = ""
    failures: int = 0
    validators: dict[str, str] = field(default_factory=dict)

    def is_due(self, now: float, longest: float) -> bool:
        """Return whether to send the request.

        Args:
            now: The time in seconds since the epoch.
            longest: Longest possible wait in seconds. An entry with a longer one was written with a wrong clock.

        """
        return now >= self.not_before or self.not_before > now + longest

    def succeeded(self, body: Any, now: float, not_before: float, validators: Mapping[str, str]) -> Entry:
        """Return the entry after a usable answer."""
        return Entry(body, now, not_before, validators=dict(validators))

    def failed(self, error: ServiceError, now: float) -> Entry:
        """Return the entry after a failure: the last usable body is kept, and the next request is delayed.

        This is the circuit breaker. The delay doubles with each consecutive failure that may be temporary, and applies
        to every process of the machine.
        """
        pause = error.pause
        if error.retry:
            pause = max(pause, min(pause * 2 ** min(self.failures, 10), _LONGEST_PAUSE))
        if error.retry_after is not None:
            pause = max(error.retry_after, timedelta(seconds=1))
        return replace(self, error=str(error), failures=self.failures + 1, not_before=now + pause.total_seconds())


class Cache:
    """Entries by key, one atomically replaced file and one lock each.

    Entries of other users are ignored. If the folder is not writable, or other users can replace its files, the entries
    are kept in memory for this process only, and ``problem`` is set.

    Args:
        folder: Folder of the files; None for ``grid`` in the cache directory of this package.

    Attributes:
        problem: One sentence if the folder cannot be used, else None.

    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_directory() / "grid"
        self.problem: str | None = None
        self._memory: dict[str, Entry] = {}
        self._is_shared = False
        self._cleaned = False

    def read(self, key: str) -> Entry:
        """Return the entry of ``key``, an empty one if there is none. This does not wait for a lock."""
        path = self.folder / f"{key}.json"
        if self._is_shared:
            return self._memory.get(key, Entry())
        try:
            data = read_json(path, own=True)
        except (OSError, UnreadableFileError):  # no file, or a partly written one
            return self._memory.get(key, Entry())
        return _entry(data) or self._memory.get(key, Entry())

    def write(self, key: str, entry: Entry) -> None:
        """Store ``entry`` atomically."""
        self._memory[key] = entry
        if self._is_shared:
            return
        content = {"version": _VERSION, **vars(entry)}  # dataclasses.asdict would copy the body, element by element
        try:
            write_json(self.folder / f"{key}.json", content, indent=None, durable=False, private=True)
        except OSError as error:
            self._degrade(error)
        else:
            self._memory.pop(key, None)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold the lock of ``key``, so that only one of several processes sends the request.

        Raises:
            UnreachableError: If another process holds the lock for too long.

        """
        lock: filelock.BaseFileLock | None = None
        try:
            make_private(self.folder)
            self._is_shared = is_shared(self.folder)
            if self._is_shared:
                raise UntrustedFileError("other users can replace its files")
            if not self._cleaned:
                self._cleaned = True
                remove_temporary_files(self.folder)
            lock = filelock.FileLock(self.folder / f"{key}.lock", timeout=_LOCK_SECONDS)
            lock.acquire()
        except filelock.Timeout:
            raise UnreachableError(
                "another process of this machine has waited for the same answer for too long"
            ) from None
        except (OSError, NotImplementedError) as error:  # the folder cannot be created, or does not support locks
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
                f"The cache folder {self.folder} cannot be used ({error}). Each process sends its own requests; set "
                f"{CACHE_VARIABLE} to a folder that only this user can write."
            )


def cache_key(identity: str, credential: str = "") -> str:
    """Return the key of a request.

    Args:
        identity: Text that is unique to the request.
        credential: Digest of the credential, so that a new credential does not inherit the failure of an old one.

    """
    return hashlib.sha256(json.dumps([identity, credential]).encode()).hexdigest()[:32]


def _entry(data: Any) -> Entry | None:
    """Return the entry in a decoded file, or None if ``Cache.write`` cannot have written it."""
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
