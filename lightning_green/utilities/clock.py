"""Time as a parameter: the system clock, and a simulated clock that passes two days in seconds."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

from lightning_green.utilities.reading import UnreadableFileError, read_bytes
from lightning_green.utilities.text import printable
from lightning_green.utilities.trusted_files import open_own

log = logging.getLogger(__name__)

_MOST_BYTES = 1000

LATEST = datetime(9999, 1, 1, tzinfo=timezone.utc).timestamp()
CLOCK_VARIABLE = "LIGHTNING_GREEN_CLOCK"

_MAX_BYTES = 1024
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW

Work = Literal["batch", "checkpoint", "restart"]


class Clock(ABC):
    """The interface of a clock; everything that waits or reads the time takes one.

    Attributes:
        is_simulated: Whether time passes only by calls of ``sleep`` and ``advance``.

    """

    is_simulated: bool

    @abstractmethod
    def time(self) -> float:
        """Return seconds since the epoch, UTC."""

    @abstractmethod
    def monotonic(self) -> float:
        """Return seconds that never go backwards, for durations."""

    @abstractmethod
    def sleep(self, seconds: float, wake: threading.Event | None = None) -> None:
        """Wait ``seconds``, or less once ``wake`` is set."""

    def advance(self, work: Work) -> None:  # noqa: B027 - real time passes by itself
        """Pass the time of one batch, checkpoint or restart on a simulated clock; real time passes by itself."""

    def go_to(self, time: float) -> None:  # noqa: B027 - real time is the same for all processes
        """Advance a simulated clock to the time of rank 0, on the other nodes of a training; never back."""

    def bind(self, folder: Path) -> None:  # noqa: B027 - real time has no position
        """Save the position of a simulated clock in ``folder``, and continue from the position saved there."""

    def look(self, folder: Path) -> None:  # noqa: B027 - real time has no position
        """Continue from the position in ``folder`` without writing to it, because its run may be alive."""

    def spec(self) -> str:
        """Return the text from which ``clock_from_spec`` creates the same clock."""
        return "system"

    def now(self) -> datetime:
        """Return the time as an aware ``datetime`` in UTC."""
        return datetime.fromtimestamp(self.time(), timezone.utc)


class SystemClock(Clock):
    """The clock of the operating system."""

    is_simulated = False
    # Read several times in each step, so without a Python function of ours in between.
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)

    def sleep(self, seconds: float, wake: threading.Event | None = None) -> None:
        """Wait ``seconds``, or less once ``wake`` is set."""
        if wake is None:
            time.sleep(max(0.0, seconds))
        else:
            wake.wait(max(0.0, seconds))


class SimulatedClock(Clock):
    """A clock that advances by a fixed time for each batch, checkpoint and restart, and skips sleeps.

    Its position is saved in the directory of the run, so a run that exits continues at the same simulated time, and a
    demo or a test makes the same decisions on any machine.

    Args:
        start: Simulated time at which the run begins: an aware ``datetime`` or ISO 8601 with an offset.
        seconds_per_batch: Simulated seconds that one training batch takes.
        seconds_per_checkpoint: Simulated seconds that saving the training state takes.
        seconds_per_restart: Simulated seconds from starting a process to its first batch.

    Raises:
        ValueError: If ``start`` has no time zone, or a number of seconds is negative or not finite.

    Examples:
        >>> clock = SimulatedClock("2024-05-01T00:00:00+00:00", seconds_per_batch=60)
        >>> clock.advance("batch"); clock.sleep(3600); clock.now().isoformat()
        '2024-05-01T01:01:00+00:00'

    """

    is_simulated = True

    def __init__(
        self,
        start: str | datetime,
        seconds_per_batch: float = 60.0,
        seconds_per_checkpoint: float = 0.0,
        seconds_per_restart: float = 0.0,
    ) -> None:
        at = datetime.fromisoformat(start.replace("Z", "+00:00")) if isinstance(start, str) else start
        if at.tzinfo is None:
            raise ValueError(f"`start` should have a time zone, such as 2024-05-01T00:00:00+00:00, got {start!r}.")
        self._seconds: dict[Work, float] = {
            "batch": float(seconds_per_batch),
            "checkpoint": float(seconds_per_checkpoint),
            "restart": float(seconds_per_restart),
        }
        for work, seconds in self._seconds.items():
            if not 0.0 <= seconds < float("inf"):
                raise ValueError(f"`seconds_per_{work}` should be 0 or more, got {seconds!r}.")
        self._start = at.astimezone(timezone.utc)
        self._position = self._start.timestamp()
        self._file: int | None = None
        self._close: weakref.finalize[[int], SimulatedClock] | None = None
        self._lock = threading.Lock()
        self._warned = False

    def __getstate__(self) -> dict[str, object]:
        # a lock and an open file belong to one process; the copy continues at the same time and saves no position
        return {**self.__dict__, "_lock": None, "_file": None, "_close": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def time(self) -> float:
        """Return the simulated seconds since the epoch, UTC."""
        return self._position

    def monotonic(self) -> float:
        """Return ``time``, because simulated time never goes back."""
        return self._position

    def sleep(self, seconds: float, wake: threading.Event | None = None) -> None:
        """Advance by ``seconds``."""
        if wake is None or not wake.is_set():
            self._move(max(0.0, seconds))

    def advance(self, work: Work) -> None:
        """Advance by the time of one ``work``."""
        self._move(self._seconds[work])

    def go_to(self, time: float) -> None:
        """Advance to ``time``, unless it has passed."""
        self._move(max(0.0, time - self._position))

    def bind(self, folder: Path) -> None:
        """Save the position in ``folder/clock``, and continue from the position saved there."""
        self.look(folder)
        if self._close is not None:
            self._close()
            self._file = self._close = None
        try:
            self._file = open_own(folder / "clock", os.O_RDWR | os.O_CREAT)
            self._close = weakref.finalize(self, os.close, self._file)
        except OSError as error:  # for example a link to a file of the user
            self._warn(error)
        self._move(0.0)

    def look(self, folder: Path) -> None:
        """Continue from the position in ``folder/clock`` without writing to it."""
        path = folder / "clock"
        try:
            content = read_bytes(path, _MAX_BYTES).strip()
        except FileNotFoundError:
            return
        except (OSError, UnreadableFileError) as error:
            log.warning("The simulated time cannot be read (%s); the clock continues at %s.", error, self.now())
            return
        if content:
            position = _position(content, self._start.timestamp())
            if position is None:
                log.warning("%s does not contain a simulated time; the clock continues at %s.", path, self.now())
            else:
                self._position = position

    def spec(self) -> str:
        """Return ``simulated:start=...,batch=...,checkpoint=...,restart=...``."""
        seconds = ",".join(f"{work}={repr(value).removesuffix('.0')}" for work, value in self._seconds.items())
        return f"simulated:start={self._start.isoformat()},{seconds}"

    def _move(self, seconds: float) -> None:
        with self._lock:
            self._position = min(self._position + seconds, LATEST)
            if self._file is not None:  # one small write in place: it survives a kill and costs two microseconds
                try:
                    os.pwrite(self._file, b"%020.6f\n" % self._position, 0)
                except OSError as error:
                    self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "The simulated time cannot be saved (%s), so a restart continues at an earlier one.", error.strerror
            )


def _position(content: bytes, earliest: float) -> float | None:
    try:
        position = float(content)
    except ValueError:
        return None
    return position if earliest <= position < LATEST else None


def clock_from_spec(text: str) -> Clock:
    """Return the clock that the text of ``Clock.spec()`` describes.

    Raises:
        ValueError: If the text is neither ``system`` nor a description of a simulated clock.

    Examples:
        >>> clock_from_spec("simulated:start=2024-05-01T00:00:00Z,batch=60").now().isoformat()
        '2024-05-01T00:00:00+00:00'

    """
    kind, _, rest = text.partition(":")
    if kind == "system" and not rest:
        return SystemClock()
    fields = dict(part.partition("=")[::2] for part in rest.split(","))
    unknown = set(fields) - {"start", "batch", "checkpoint", "restart"}
    if kind != "simulated" or "start" not in fields or unknown:
        raise ValueError(
            f'The clock should be "system" or "simulated:start=TIME,batch=S,checkpoint=S,restart=S", got {text!r}.'
        )
    seconds: dict[str, float] = {}
    for work in set(fields) - {"start"}:
        try:
            seconds[f"seconds_per_{work}"] = float(fields[work])
        except ValueError:  # noqa: PERF203 - at most three iterations
            raise ValueError(f"`{work}` should be a number of seconds, got {fields[work]!r}.") from None
    return SimulatedClock(fields["start"], **seconds)


def clock_from_record(spec: object) -> Clock:
    """Return the clock of a record on disk; the system clock if there is none, or if it cannot be used.

    Args:
        spec: The text of ``Clock.spec()``, or anything else.

    """
    if spec is None:
        return SystemClock()
    try:
        if not isinstance(spec, str):
            raise TypeError("no text")
        return clock_from_spec(spec)
    except (TypeError, ValueError, OverflowError):
        log.warning("The recorded clock %s cannot be used. The system clock is used.", printable(repr(spec)[:80]))
        return SystemClock()


def clock_from_environment() -> Clock | None:
    """Return the clock that the supervisor passes to its child process, or None."""
    text = os.environ.get(CLOCK_VARIABLE)
    return clock_from_spec(text) if text else None


def utc_iso(seconds: float) -> str:
    """Return seconds since the epoch as ISO 8601 in UTC.

    Examples:
        >>> utc_iso(0.0)
        '1970-01-01T00:00:00+00:00'

    """
    return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)).isoformat()
