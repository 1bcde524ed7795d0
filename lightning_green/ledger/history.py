"""What a run did before: of a ledger that is long after a week, a start reads what is new since the last time.

What was worked out of the rest is kept beside it, in ``past.json``. That is no record of its own: where it does not
belong to the ledger as it is now, the whole ledger is read.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_green.ledger.ledger import (
    ENDED_EVENT,
    STATE_EVENTS,
    last_state_event,
    ledger_files,
    parse_lines,
    read_ledger,
)
from lightning_green.ledger.totals import FitTotals, Totals, sum_totals, total_by_fit
from lightning_green.utilities.files import write_json

log = logging.getLogger(__name__)

FILE = "past.json"
FORMAT = 2
"""To be raised with whatever changes what the totals of the same events are."""
KEPT_FROM = 100
"""How many new events are worth keeping what came of them."""
_ENDS = 200


class Past(NamedTuple):
    """What the ledger says of a run up to now.

    Args:
        records: Events in their order; of those before the last reading, the ones that are asked for again.
        fits: The totals of each fit, by its number; under None, the energy between the fits.

    """

    records: list[dict[str, Any]]
    fits: FitTotals

    @property
    def totals(self) -> Totals:
        """The totals of the run: the sums over its fits."""
        return sum_totals(self.fits)

    @property
    def state(self) -> dict[str, Any] | None:
        """The last event that says how the run stands."""
        return last_state_event(self.records)

    @property
    def states(self) -> dict[int, dict[str, Any]]:
        """The last event that says how each fit stands, by the number of the fit."""
        found = {_fit(record): record for record in self.records if record.get("event") in STATE_EVENTS}
        return dict(sorted(found.items()))

    @property
    def ended(self) -> bool:
        """Whether the last process of the run came to its end without an exception."""
        last = next((r for r in reversed(self.records) if r.get("event") in (*STATE_EVENTS, ENDED_EVENT)), None)
        return last is not None and last["event"] == ENDED_EVENT

    @property
    def attempts(self) -> int:
        """How often the run was started."""
        return max(map(_attempt, self.records), default=0)

    @property
    def steps(self) -> int:
        """The most optimizer steps that were done, summed over the fits."""
        most: dict[int, int] = {}
        for record in self.records:
            most[_fit(record)] = max(most.get(_fit(record), 0), _step(record))
        return sum(most.values())


def read_past(folder: Path) -> Past:
    """Return the past of the run in ``folder``; whoever reads much that is new keeps what came of it.

    Raises:
        OSError: If the ledger cannot be read.

    """
    files = ledger_files(folder)
    if len(files) != 1:  # of several nodes, lines that belong to the past may come late
        return _past_of(Past([], {}), read_ledger(folder))
    data = files[0].read_bytes()
    before, start = _kept(folder, data)
    new = list(parse_lines(data[start:].split(b"\n")))
    past = _past_of(before, new)
    if len(new) >= KEPT_FROM and data.endswith(b"\n"):
        _keep(folder, data, past)
    return past


def _past_of(before: Past, new: Sequence[dict[str, Any]]) -> Past:
    return Past([*before.records, *new], total_by_fit(new, before.fits))


def _attempt(record: dict[str, Any]) -> int:
    return int(record.get("attempt", 0))


def _step(record: dict[str, Any]) -> int:
    return int(record.get("global_step", 0))


def _fit(record: dict[str, Any]) -> int:
    return int(record.get("fit") or 0)


def _asked_for(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events that a later start looks for: how the run stood, how far it was, how fast its steps were."""
    last: dict[Any, dict[str, Any]] = {}
    for record in records:
        if record.get("event") in STATE_EVENTS:
            last["state", _fit(record)] = record
        if record.get("event") == ENDED_EVENT:
            last["ended"] = record
        if record.get("seconds_per_batch") is not None:
            last["speed", _fit(record)] = record
        best = last.get(("steps", _fit(record)))
        if best is None or _step(record) > _step(best):
            last["steps", _fit(record)] = record
    if records:
        last["attempt"] = max(records, key=_attempt)
    wanted = {id(record) for record in last.values()}
    return [record for record in records if id(record) in wanted]


def _kept(folder: Path, data: bytes) -> tuple[Past, int]:
    """Return what is kept of a ledger, and the byte after the last event that is in it."""
    try:
        kept = json.loads((folder / FILE).read_bytes())
        start = int(kept["bytes"])
        fits = 0 < start <= len(data) and data[max(0, start - _ENDS) : start] == kept["ends"].encode()
        if fits and kept["format"] == FORMAT:
            fits = {
                None if number == "" else int(number): Totals.from_plain(one) for number, one in kept["fits"].items()
            }
            return Past(kept["records"], fits), start
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.debug("%s is not used: %s", folder / FILE, error)
    return Past([], {}), 0


def _keep(folder: Path, data: bytes, past: Past) -> None:
    kept = {
        "format": FORMAT,
        "bytes": len(data),
        "ends": data[-_ENDS:].decode(errors="replace"),
        "records": _asked_for(past.records),
        "fits": {"" if number is None else str(number): totals.plain() for number, totals in past.fits.items()},
    }
    try:
        write_json(folder / FILE, kept, indent=None, durable=False)
    except OSError as error:  # a full disk: the whole ledger is read next time
        log.debug("%s could not be written: %s", folder / FILE, error)
