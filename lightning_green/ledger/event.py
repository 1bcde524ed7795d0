"""The event of a ledger: its header, and its form as JSON.

An event holds a header (when, where and in which attempt it was written), the state of the fit, the energy measured up
to that moment, and the fields of its own class. Readers keep what they do not know: an event of an unknown name is an
``UnknownEvent``, and unknown fields are in ``extra``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from lightning_green.ledger.event_fields import own_fields
from lightning_green.ledger.measurement import Measurement

LEDGER_VERSION = 2
"""Since version 2 each fit has a meter of its own, whose joules start at 0."""

_HEADER = ("v", "seq", "time_utc", "mono_s", "node", "pid", "attempt")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of a ledger.

    Args:
        seq: Number of the event in the ledger of its node, from 1.
        time_utc: Time of the run's clock (ISO 8601, UTC).
        mono_s: Monotonic seconds of the run's clock.
        node: Name of the node.
        pid: Process id.
        attempt: Start of the run that the event belongs to, from 1.
        v: Version of the ledger.
        phase: Phase of the fit, for example ``"training"``; None if the event was not written by a training process.
        state: ``"running"``, ``"throttled"``, ``"held"`` or ``"out"``.
        measured: Energy up to the event, or None.
        global_step: Optimizer steps done, or None.
        fit: Number of the fit within its run; None if the event belongs to no fit.
        reason: One sentence for people.
        node_rank: Number of the node; 0 is the node of rank 0.
        extra: Fields that this version does not know.

    """

    name: ClassVar[str]

    seq: int = 0
    time_utc: str = ""
    mono_s: float = 0.0
    node: str = ""
    pid: int = 0
    attempt: int = 0
    v: int = LEDGER_VERSION
    phase: str | None = None
    state: str | None = None
    measured: Measurement | None = None
    global_step: int | None = None
    fit: int | None = 0
    reason: str = ""
    node_rank: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def time(self) -> datetime:
        """The time of the run's clock."""
        return datetime.fromisoformat(self.time_utc)

    @property
    def timestamp(self) -> float:
        """The time of the run's clock in seconds since the epoch."""
        return self.time.timestamp()

    @property
    def accounted_fit(self) -> int | None:
        """Number of the fit that the energy belongs to; None if it belongs to no fit.

        Before version 2 the meter counted over all fits of a process, so they are one.
        """
        return self.fit if self.fit is None or self.v >= LEDGER_VERSION else 0

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON; fields that do not apply are left out."""
        record: dict[str, Any] = {name: getattr(self, name) for name in _HEADER}
        record["event"] = self._json_name()
        for name in ("phase", "state"):
            if getattr(self, name) is not None:
                record[name] = getattr(self, name)
        if self.measured is not None:
            record |= self.measured.to_json()
        if self.global_step is not None:
            record["global_step"] = self.global_step
        record |= {"fit": self.fit, "reason": self.reason}
        if self.node_rank:
            record["node_rank"] = self.node_rank
        for name, (_, encode) in own_fields(type(self), Event).items():
            value = getattr(self, name)
            if value is not None:
                record[name] = encode(value)
        return {**record, **self.extra}

    def _json_name(self) -> str:
        return self.name


@dataclass(frozen=True, kw_only=True)
class StateEvent(Event):
    """An event after which a fit is in another state of its life.

    On other nodes it is written as ``node_<name>``: only the node of rank 0 decides about the state of a fit.
    """

    def _json_name(self) -> str:
        return f"node_{self.name}" if self.node_rank else self.name


@dataclass(frozen=True, kw_only=True)
class UnknownEvent(Event):
    """An event that another version has written.

    Args:
        kind: Its name.

    """

    name: ClassVar[str] = ""
    kind: str

    def _json_name(self) -> str:
        return self.kind

    def to_json(self) -> dict[str, Any]:
        """Return the event as it was read."""
        return dict(self.extra)
