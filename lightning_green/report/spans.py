"""From a ledger's events to spans of time: when a run was running, held, out or stopped."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from lightning_green.ledger.totals import node_of


class Span(NamedTuple):
    """A state that lasted from ``start`` to ``end``.

    ``state`` is one of the ledger's (``running``, ``throttled``, ``held``), ``out`` between a planned exit and the next
    start, or ``stopped`` between any other end and the next start.
    """

    start: datetime
    end: datetime
    state: str


def spans(records: Iterable[dict[str, Any]]) -> list[Span]:
    """Return what a run did, in order and without a gap between its first start and its last event.

    Args:
        records: Events of the ledger, in order. Of several nodes, the first one counts, where rank 0 runs.

    """
    found: list[Span] = []
    previous: dict[str, Any] | None = None
    paused = False
    for record in records:
        if "state" not in record or "joules" not in record:
            continue  # written by the supervisor, which is not what runs
        if previous is None and record["event"] != "started":
            continue
        if node_of(record):
            continue
        at = datetime.fromisoformat(record["time_utc"])
        if previous is None or record["attempt"] != previous["attempt"]:
            began = at - timedelta(seconds=float(record.get("startup_s", 0.0)))
            if previous is not None:
                _extend(found, datetime.fromisoformat(previous["time_utc"]), began, "out" if paused else "stopped")
            _extend(found, began, at, "running")
            paused = False
        else:
            _extend(found, datetime.fromisoformat(previous["time_utc"]), at, previous["state"])
        paused = paused or record["event"] == "paused"
        previous = record
    return found


def _extend(found: list[Span], start: datetime, end: datetime, state: str) -> None:
    if end <= start:
        return
    if found and found[-1].state == state and found[-1].end == start:
        found[-1] = found[-1]._replace(end=end)
    else:
        found.append(Span(start, end, state))
