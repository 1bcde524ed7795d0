"""Waiting between a planned exit and the next start, with a new plan every hour."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from lightning_green.grid.recorded import grid_from_record
from lightning_green.grid.signal import GridSignal
from lightning_green.ledger.events import Decision, Event, Paused, Warned
from lightning_green.ledger.intensity_series import series_record
from lightning_green.ledger.ledger import Ledger
from lightning_green.planning import FORECAST_ARCHIVE_FILE, ForecastArchive, Job, Plan, live_plan
from lightning_green.supervisor.command import FitKey
from lightning_green.utilities.clock import Clock

MINUTE = timedelta(minutes=1)
MAX_RETURN_HOURS = 365 * 24.0


class Waiting:
    """Waits until the first of several paused fits is due to resume.

    Args:
        paused: The paused fits with their last events.
        print_line: Receives messages for the user, one line each.

    """

    def __init__(self, paused: Mapping[FitKey, Paused], print_line: Callable[[str], None]) -> None:
        (self.path, _), self._paused = min(paused.items(), key=lambda item: _start(item[1]))
        self._until = _until(self._paused)
        self._others = [_start(one) for one in paused.values() if one is not self._paused]
        self._print_line = print_line
        self._warned = False

    @property
    def start(self) -> datetime:
        """Time at which the command has to start, by the last plan."""
        return min([self._until - _return_time(self._paused), *self._others])

    def describe(self) -> str:
        """Return the planned time of the next step and the reason of the exit in one line."""
        until, start, reason = self._until, self.start, self._paused.reason
        if reason.startswith("Exit until "):  # the planner's reason repeats the time
            reason = reason.partition("UTC: ")[2]
        early = f" The command starts at {start:%H:%M} UTC." if _return_time(self._paused) >= MINUTE else ""
        more = f" ({len(self._others) + 1} trainings are paused)" if self._others else ""
        return f"Exited until {until:%Y-%m-%d %H:%M} UTC: {reason}{early}{more}"

    def wait(self, clock: Clock, wake: threading.Event, beat: Callable[[], None], stop_at: float | None = None) -> bool:
        """Sleep until the command has to start or until ``wake`` is set. Make a new plan at the end of each hour.

        The command starts before the planned time of its next step, by the time that it needs to return.

        Args:
            clock: Clock bound to the run directory.
            wake: Ends the wait.
            beat: Called at least once a minute of real time.
            stop_at: Real time at which the wait is interrupted, in seconds since the epoch; None for no such time.

        Returns:
            Whether the wait is over. It is not if it was interrupted at ``stop_at``.

        """
        grid = self._grid(clock)
        if grid is not None:
            grid.bind_clock(clock.now)
            grid.start()
        archive = ForecastArchive(
            self.path / FORECAST_ARCHIVE_FILE
        )  # also holds the forecasts received during training
        self._print_line(self.describe())
        try:
            while not wake.is_set() and clock.now() < self.start:
                if stop_at is not None and time.time() >= stop_at:
                    return False
                seconds = (self.start - clock.now()).total_seconds()
                next_slot = 3600.0 - clock.time() % 3600.0
                left = 60.0 if stop_at is None else max(0.0, stop_at - time.time())
                clock.sleep(min(seconds, next_slot, 3600.0 if clock.is_simulated else min(60.0, left)), wake)
                beat()
                if grid is not None and clock.now() < self.start and clock.time() % 3600.0 < 60.0:
                    self._until = self._replan(grid, archive, clock, self._until)
        finally:
            if grid is not None:
                grid.close()
        return True

    def _grid(self, clock: Clock) -> GridSignal | None:
        spec, job = self._paused.grid, self._paused.job or {}
        if spec is None or not (job.get("deadline") or job.get("delay_price")):
            return None
        try:
            Job.from_json(job, "out")
            return grid_from_record(spec)
        except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, ImportError) as error:
            # a moved trace file, a class of the script, a damaged ledger
            line = f"A new plan is not possible until the run resumes, so the planned time does not change: {error}"
            self._record(clock, Warned(reason=line))
            self._print_line(line)
            return None

    def _replan(self, grid: GridSignal, archive: ForecastArchive, clock: Clock, until: datetime) -> datetime:
        now = clock.now()
        try:
            answer = live_plan(grid, Job.from_json(self._paused.job or {}, "out"), archive, now)
        except Exception as error:  # noqa: BLE001 - a job from a damaged ledger must not end the wait
            if not self._warned:
                self._warned = True
                self._print_line(f"A new plan is not possible ({error}), so the planned time does not change.")
            return until
        waits = answer.slots[0].action in ("exit", "hold")
        again = answer.until if waits else now
        if abs(again - until) >= MINUTE:
            action = "exit" if again - _return_time(self._paused) > now else "run"
            self._record(clock, self._decision(answer, action, again))
            self._print_line(f"New plan: exited until {again:%Y-%m-%d %H:%M} UTC. {answer.reason}")
        return again

    @staticmethod
    def _decision(answer: Plan, action: str, until: datetime) -> Decision:
        forecast = series_record(answer.slots[0].start, *answer.expected_intensities())
        return Decision(reason=answer.reason, action=action, until=until, forecast=forecast)

    def _record(self, clock: Clock, event: Event) -> None:
        try:
            ledger = Ledger(self.path, clock, self._paused.attempt)
        except OSError as error:
            if not self._warned:
                self._print_line(f"The ledger in {self.path} cannot be written ({error.strerror}). The wait continues.")
            self._warned = True
            return
        ledger.append(replace(event, state="out", fit=self._paused.fit))
        ledger.close()


def _until(paused: Paused) -> datetime:
    assert paused.until is not None
    return paused.until


def _return_time(paused: Paused) -> timedelta:
    """Return the time that the command needs from its start to its first new step."""
    hours = (paused.job or {}).get("return_time", 0.0)
    known = isinstance(hours, (int, float)) and 0.0 <= hours <= MAX_RETURN_HOURS  # not in a damaged ledger
    return timedelta(hours=hours) if known else timedelta(0)


def _start(paused: Paused) -> datetime:
    """Return the time at which the command has to start."""
    return _until(paused) - _return_time(paused)
