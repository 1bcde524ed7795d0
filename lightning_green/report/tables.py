"""Tables of a fit for loggers: its decisions, and its state and emissions over time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from lightning_green.ledger.account import Account
from lightning_green.ledger.events import Decision, Event
from lightning_green.report.series import thinned
from lightning_green.utilities.text import printable

MOST_ROWS = 1000


class Table(NamedTuple):
    """A table.

    Attributes:
        columns: Names of the columns.
        rows: One list of values for each row.

    """

    columns: list[str]
    rows: list[list[Any]]


def decision_table(events: Iterable[Event]) -> Table:
    """Return the last decisions of a fit, one in each row, with the reason that was printed.

    Args:
        events: Events of the fit from ``read_ledger``.

    """
    made = [event for event in events if isinstance(event, Decision)][-MOST_ROWS:]
    columns = ["time_utc", "step", "action", "until", "saving_pct", "work_hours", "reason"]
    rows = [
        [
            one.time_utc,
            one.global_step,
            one.action,
            None if one.until is None else one.until.isoformat(),
            None if one.saving is None else 100.0 * one.saving,
            one.work_hours,
            printable(one.reason),
        ]
        for one in made
    ]
    return Table(columns, rows)


def timeline_table(events: Iterable[Event]) -> Table:
    """Return state, intensity, energy and emissions of a fit over time, in at most ``MOST_ROWS`` rows.

    Values that are not known are None. The hours begin at the first event.

    Args:
        events: Events of the fit from ``read_ledger``, of all nodes.

    """
    account, rows = Account(), list[list[Any]]()
    first: float | None = None
    for event in events:
        account.add(event)
        if event.measured is None or event.node_rank:
            continue
        first = event.timestamp if first is None else first
        totals, intensity = account.totals, event.measured.intensity
        grams = next(iter(totals.gco2e.values())) if len(totals.gco2e) == 1 else None  # kinds are never added up
        hours = (event.timestamp - first) / 3600.0
        price = None if intensity is None else intensity.value
        rows.append([hours, event.time_utc, event.state, price, totals.kwh, grams])
    return Table(["hours", "time_utc", "state", "intensity", "kwh", "gco2e"], thinned(rows, MOST_ROWS))
