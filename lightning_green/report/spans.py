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


class SpanBuilder:
    """Builds the spans of a run, one event after another.

    Attributes:
        found: The spans so far, in order, without gaps between the first start of the run and the last event.

    """

    def __init__(self) -> None:
        self.found: list[Span] = []
        self._previous: tuple[datetime, int, str] | None = None
        self._has_exited = False

    def add(self, event: Event) -> None:
        """Add the next event. Only events of the node of rank 0 are used."""
        if event.state is None or event.measured is None or event.node_rank:
            return  # an event of the supervisor or of another node
        previous = self._previous
        if previous is None and not isinstance(event, Started):
            return
        at = event.time
        if previous is None or event.attempt != previous[1]:
            began = at - timedelta(seconds=event.startup_s if isinstance(event, Started) else 0.0)
            if previous is not None:
                _extend(self.found, previous[0], began, "out" if self._has_exited else "stopped")
            _extend(self.found, began, at, "running")
            self._has_exited = False
        else:
            _extend(self.found, previous[0], at, previous[2])
        self._has_exited = self._has_exited or isinstance(event, Paused)
        self._previous = at, event.attempt, event.state or "running"


def spans(events: Iterable[Event]) -> list[Span]:
    """Return the spans of a run in order, without gaps between its first start and its last event.

    Args:
        events: Events of the ledger in order. Only events of the node of rank 0 are used.

    """
    builder = SpanBuilder()
    for event in events:
        builder.add(event)
    return builder.found


def _extend(found: list[Span], start: datetime, end: datetime, state: str) -> None:
    if end <= start:
        return
    if found and found[-1].state == state and found[-1].end == start:
        found[-1] = found[-1]._replace(end=end)
    else:
        found.append(Span(start, end, state))
