"""Files of a resumed run that another program rewrites, or that are gone."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from lightning_green.grid.registry import GridLike, build_grid
from lightning_green.grid.signal import GridSignal
from lightning_green.ledger.events import BudgetChecked, Decision, Event, Paused, Started
from lightning_green.ledger.ledger import read_ledger
from lightning_green.ledger.run_directory import RESTARTED_VARIABLE, RESUME_VARIABLE, RUN_DIR_VARIABLE, run_directories
from lightning_green.planning.prices import PriceSeries

T = TypeVar("T")

ATTEMPTS, SECONDS = 6, 1.0

log = logging.getLogger(__name__)


def while_rewritten(read: Callable[[], T], fallback: Callable[[], T | None] = lambda: None, instead: str = "") -> T:
    """Return the result of ``read``, which is tried for five seconds under a supervisor.

    A run that resumes after hours reads its files again, and a program that downloads new values may be writing them at
    that moment. Without a supervisor somebody is present, and an error is raised at once. A start that the supervisor
    makes by itself does not fail because of such a file: it continues with ``fallback`` and a warning.

    Args:
        read: Reads the file.
        fallback: Returns what is used instead; None if there is nothing.
        instead: Names it in the warning.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If its content is invalid.

    """
    if not os.environ.get(RESUME_VARIABLE):
        return read()
    errors = retry_if_exception_type((OSError, ValueError))
    try:
        return Retrying(stop=stop_after_attempt(ATTEMPTS), wait=wait_fixed(SECONDS), retry=errors, reraise=True)(read)
    except (OSError, ValueError) as error:
        found = fallback() if is_automatic_restart() else None
        if found is None:
            raise
        _warn(f"{_sentence(error)} The run continues with {instead}.")
        return found


def build_grid_of_run(grid: GridLike, zone: str | None) -> GridSignal | None:
    """Return the signal for ``grid``, see ``build_grid``; None in an automatic restart whose file cannot be read."""
    try:
        return while_rewritten(lambda: build_grid(grid, zone=zone))
    except (OSError, ValueError) as error:
        if not is_automatic_restart() or not _has_had_a_grid():
            raise
        _warn(f"{_sentence(error)} Until its next start, the run does not wait and its emissions are unknown.")
        return None


def is_automatic_restart() -> bool:
    """Return whether the supervisor has started a command again that has trained, so that nobody may be present."""
    return bool(os.environ.get(RESTARTED_VARIABLE))


def recorded_prices() -> PriceSeries | None:
    """Return the prices that a scheduler or a budget of this command has used last, or None."""
    for event in _newest_events():
        with suppress(ValueError, TypeError, AttributeError):
            prices = event.prices if isinstance(event, BudgetChecked) else None
            if isinstance(event, (Decision, Paused)) and event.job is not None:
                prices = event.job.get("prices")
            if prices is not None:
                return PriceSeries.from_json(prices)
    return None


def recorded_pue() -> float | None:
    """Return the PUE of the last measurement of this command, or None."""
    return next((event.measured.pue for event in _newest_events() if event.measured is not None), None)


def _sentence(error: Exception) -> str:
    return str(error).rstrip(".") + "."


@functools.lru_cache(maxsize=100)  # several callbacks read the same file
def _warn(line: str) -> None:
    log.warning("%s", line)


def _has_had_a_grid() -> bool:
    return any(isinstance(event, Started) and event.signal for event in _newest_events())


def _newest_events() -> Iterator[Event]:
    """Yield the events of the runs of this command, the newest first."""
    home = os.environ.get(RUN_DIR_VARIABLE)
    events = list[Event]()
    for folder in run_directories(Path(home)) if home else []:
        with suppress(OSError):
            events += read_ledger(folder)
    yield from sorted(events, key=lambda event: event.time_utc, reverse=True)
