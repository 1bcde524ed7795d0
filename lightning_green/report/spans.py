"""Time spans in which a run was running, throttled, held, exited or stopped."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from lightning_green.ledger.events import Event, Paused, Started


class Span(NamedTuple):
    """A time span with one state.

    Attributes:
        start: Start of the span.
        end: End of the span.
        state: A state of the ledger (``running``, ``throttled``, ``held``), ``out`` between a planned exit and the next
            start, or ``stopped`` between any other end and the next start.

    """

    start: datetime
    end: datetime
    state: str


def spans(events: Iterable[Event]) -> list[Span]:
    """Return the spans of a run in order, without gaps between its first start and its last event.

    Args:
        events: Events of the ledger in order. Only events of the node of rank 0 are used.

    """
    found: list[Span] = []
    previous: Event | None = None
    paused = False
    for event in events:
        if event.state is None or event.measured is None or event.node_rank:
            continue  # an event of the supervisor or of another node
        if previous is None and not isinstance(event, Started):
            continue
        at = event.time
        if previous is None or event.attempt != previous.attempt:
            began = at - timedelta(seconds=event.startup_s if isinstance(event, Started) else 0.0)
            if previous is not None:
                _extend(found, previous.time, began, "out" if paused else "stopped")
            _extend(found, began, at, "running")
            paused = False
        else:
            _extend(found, previous.time, at, previous.state or "running")
        paused = paused or isinstance(event, Paused)
        previous = event
    return found


def _extend(found: list[Span], start: datetime, end: datetime, state: str) -> None:
    if end <= start:
        return
    if found and found[-1].state == state and found[-1].end == start:
        found[-1] = found[-1]._replace(end=end)
    else:
        found.append(Span(start, end, state))
