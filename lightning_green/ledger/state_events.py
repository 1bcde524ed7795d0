"""The events after which a fit is in another state of its life."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from lightning_green.ledger.event import StateEvent


@dataclass(frozen=True, kw_only=True)
class Started(StateEvent):
    """The training of a fit has started in a process.

    Args:
        startup_s: Seconds from the first measurement to this event.
        meter: Description of the meter.
        nodes: Number of nodes; None for one.
        restored: What the fit was continued from, or None.
        script: Command line of the process.
        signal: Digest of the spec of the grid signal, which distinguishes signals of one name; None without one.
        away: Intensities between the last event of the fit and this start, as ``series_record`` writes them, or None.

    """

    name: ClassVar[str] = "started"
    startup_s: float = 0.0
    meter: str = ""
    nodes: int | None = None
    restored: str | None = None
    script: list[str] | None = None
    signal: str | None = None
    away: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Finished(StateEvent):
    """A fit has finished.

    Args:
        again: True if it had finished in an earlier process and was restored in this one.

    """

    name: ClassVar[str] = "finished"
    again: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Paused(StateEvent):
    """A fit has exited until a planned time.

    Args:
        until: Planned time of the next start, or None.
        job: The planner's job as JSON, from which the supervisor plans again.
        grid: Spec of the grid signal, or None.
        seconds_per_batch: Mean seconds of a training batch.
        seconds_per_validation: Mean seconds of a validation.
        saving: Expected saving as a fraction of run-now emissions.
        startup_seconds: Time from the start of the command to the first step of this process.
        idle_watts: Idle power of the devices, of all nodes, which they draw as long as they stay allocated.
        allocation: What keeps them allocated until the next start, such as ``"SLURM job 7"``; None if the exit was
            meant to release them.
        remedy: What has to be done before the next start, if no time is planned; None otherwise.

    """

    name: ClassVar[str] = "paused"
    until: datetime | None = None
    job: Mapping[str, Any] | None = None
    grid: Mapping[str, Any] | None = None
    seconds_per_batch: float | None = None
    seconds_per_validation: float | None = None
    saving: float | None = None
    startup_seconds: float | None = None
    idle_watts: float | None = None
    allocation: str | None = None
    remedy: str | None = None


@dataclass(frozen=True, kw_only=True)
class Interrupted(StateEvent):
    """A signal has stopped a fit.

    Args:
        signal: Name of the signal, for example ``"SIGTERM"``.

    """

    name: ClassVar[str] = "interrupted"
    signal: str = ""


@dataclass(frozen=True, kw_only=True)
class Failed(StateEvent):
    """An exception has ended a fit.

    Args:
        traceback: Digest of the traceback, to recognize the same failure.
        thread: Name of the thread; None for the main thread.

    """

    name: ClassVar[str] = "failed"
    traceback: str = ""
    thread: str | None = None
