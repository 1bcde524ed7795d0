"""Replay a recorded year: what would each policy have emitted?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Literal

import numpy as np

from lightning_green.backtest import policies
from lightning_green.backtest.observation import DAY, View
from lightning_green.backtest.planner_policy import PlannerPolicy
from lightning_green.backtest.policies import Choice, Policy
from lightning_green.backtest.simulator import FULL, Simulator
from lightning_green.backtest.zone_archive import Archive
from lightning_green.planning.forecast import Forecast
from lightning_green.planning.job import PAUSES, Job, Level
from lightning_green.planning.planner import plan
from lightning_green.utilities.validation import check_number

POLICIES: dict[str, Callable[[], Policy]] = {
    "run_now": lambda: policies.run_now,
    "deferred_start": lambda: policies.deferred_start,
    "lowest_slots": lambda: policies.lowest_slots,
    "threshold": lambda: policies.threshold,
    "online": lambda: policies.online,
    "static_throttle": lambda: policies.static_throttle,
    "planner": PlannerPolicy,
    "planner_no_forecast": lambda: PlannerPolicy(use_forecast=False),
}
OPTIMAL = "optimal"
SMALLEST_OPTIMUM = 0.5
"""Percent that the optimum has to save for a share of it to mean something."""
FIRST_DAYS = 7
TIE = 1e-9


@dataclass(frozen=True)
class Backtest:
    """A job that is started again and again over a recorded year, under every policy.

    Args:
        work_hours: Work in hours at full power.
        window_hours: Hours from the start to the deadline.
        hold_power: Fraction of full power drawn while held.
        resume_hours: Energy of an exit and return, in hours at full power.
        throttle: Operating points beside full power.
        start_hour: UTC hour of the day of every start.
        every_days: Days between two starts.
        lag_hours: Hours after which an intensity is known; with 1 that of the hour that runs is not.
        pauses: The pauses that are possible.
        account: ``"attributed"`` (all that the job draws) or ``"incremental"`` (above ``idle_power``).
        idle_power: Fraction of full power that the device draws without any job.
        embodied_rate: Embodied emissions in gCO2e per hour and kW of full power, added while the device is taken.

    Raises:
        ValueError: If an argument is out of its range.

    Example::

        from pathlib import Path
        from lightning_green.backtest.zone_archive import read_archive
        result = Backtest(work_hours=24, window_hours=48).run(read_archive(Path("DE.csv"), Path("DE_96h.csv")))
        print(result["planner"]["saving_pct"])

    """

    work_hours: float = 24.0
    window_hours: float = 48.0
    hold_power: float = 0.2
    resume_hours: float = 0.1
    throttle: tuple[Level, ...] = ()
    start_hour: int = 9
    every_days: int = 2
    lag_hours: int = 1
    pauses: frozenset[str] = field(default=PAUSES)
    account: Literal["attributed", "incremental"] = "attributed"
    idle_power: float = 0.0
    embodied_rate: float = 0.0

    def __post_init__(self) -> None:
        check_number("work_hours", self.work_hours, above_low=True, unit="hours")
        check_number("window_hours", self.window_hours, above_low=True, unit="hours")
        check_number("hold_power", self.hold_power, 0.0, 1.0)
        check_number("resume_hours", self.resume_hours, unit="hours at full power")
        check_number("idle_power", self.idle_power, 0.0, 1.0)
        check_number("embodied_rate", self.embodied_rate, unit="gCO2e per hour and kW")
        for name, low, high in (("start_hour", 0, 23), ("every_days", 1, 366), ("lag_hours", 0, 2 * DAY)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"`{name}` should be a whole number from {low} to {high}, got {value!r}.")
        if self.account not in ("attributed", "incremental"):
            raise ValueError(f'`account` should be "attributed" or "incremental", got {self.account!r}.')
        Job(self.work_hours, levels=self.levels, pauses=self.pauses, idle_power=self._sunk)

    @property
    def levels(self) -> tuple[Level, ...]:
        """All operating points; the first is full power."""
        return (FULL, *self.throttle)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the policies that come into question."""
        return tuple(name for name in (*POLICIES, OPTIMAL) if self.throttle or name != "static_throttle")

    @property
    def _sunk(self) -> float:
        """Fraction of full power that does not count."""
        return self.idle_power if self.account == "incremental" else 0.0

    def starts(self, archive: Archive) -> list[int]:
        """Return the hours in which a run begins.

        With forecasts, from the first day on which one was issued to the day after the last one; without, from the
        eighth recorded day on. The whole window of a run is on record.
        """
        first, last = archive.first + FIRST_DAYS * DAY, archive.end
        if len(archive.issued):
            first, last = max(archive.first, int(archive.issued[0])), min(last, int(archive.issued[-1]) + DAY)
        day = math.ceil(first / DAY)
        if day * DAY - DAY + self.start_hour >= first:
            day -= 1
        hours = range(day * DAY + self.start_hour, last, self.every_days * DAY)
        needed = math.ceil(max(self.window_hours, self.work_hours))
        return [hour for hour in hours if hour + needed <= archive.end]

    def run(self, archive: Archive, names: Iterable[str] | None = None) -> dict[str, dict[str, float | None]]:
        """Return for each policy what :func:`summary` says of its runs.

        Raises:
            ValueError: If the archive is too short for a single run.

        """
        outcomes = self.outcomes(archive, names)
        return summary(outcomes, self)

    def outcomes(self, archive: Archive, names: Iterable[str] | None = None) -> dict[str, list[Simulator]]:
        """Return the finished account of every run under every policy."""
        starts = self.starts(archive)
        if not starts:
            raise ValueError(
                f"{archive.zone} has {len(archive.actual)} hours on record, too few for a run of "
                f"{self.window_hours:g} h (seven days of history come first where there are no forecasts)."
            )
        done = {}
        for name in dict.fromkeys((*(names or self.names), "run_now", OPTIMAL)):
            if name == OPTIMAL:
                done[name] = [self.replay(archive, start, self.clairvoyant(archive, start)) for start in starts]
            else:
                policy = POLICIES[name]()
                done[name] = [self.replay(archive, start, policy) for start in starts]
        return done

    def replay(self, archive: Archive, start: int, policy: Policy) -> Simulator:
        """Return the account of one run under ``policy``, which is shown what was known then and nothing else.

        Whatever the policy says, the job runs when there is no time left to lose.
        """
        job = Simulator(
            self.work_hours,
            hold_power=self.hold_power,
            resume_cost=self.resume_hours,
            idle_power=self.idle_power,
            embodied_rate=self.embodied_rate,
        )
        first: View | None = None
        hour = start
        while not job.done:
            left = self.window_hours - (hour - start)
            choice: Choice = policies.RUN
            if left - 1 >= job.left - 1e-9 or (left >= job.left - 1e-9 and len(self.levels) > 1):
                view = self.view(archive, hour, job, left, first)
                first = first or view
                choice = self._guarded(policy(view), left, job.left)
            action, level = choice
            if hour >= archive.end:
                raise ValueError(f"{archive.zone} ends before the run does.")
            job.step(action, 1.0, float(archive.actual[hour - archive.first]), level or FULL)
            hour += 1
        return job

    def _guarded(self, choice: Choice, left: float, work: float) -> Choice:
        """Return ``choice``, or to run where the deadline would be missed after it."""
        action, level = choice
        speed = level.speed if action == "throttle" and level else 1.0 if action == "run" else 0.0
        if speed and work / speed <= min(1.0, left) + 1e-9:
            return choice
        return choice if work - speed <= left - 1 + 1e-9 else policies.RUN

    def view(self, archive: Archive, hour: int, job: Simulator, left: float, first: View | None) -> View:
        """Return what is known when ``hour`` begins: intensities up to ``hour - lag_hours``, forecasts issued by it."""
        until = min(archive.end, hour - self.lag_hours + 1)
        issues = int(np.searchsorted(archive.issued, hour, side="right"))
        return View(
            hour=hour,
            past=archive.actual[: max(0, until - archive.first)],
            known_until=max(archive.first, until),
            issued=archive.issued[:issues],
            forecasts=archive.forecasts[:issues],
            work_left=job.left,
            hours_left=left,
            state=job.state,
            pauses=self.pauses,
            hold_power=self.hold_power,
            resume_cost=self.resume_hours,
            levels=self.levels,
            idle_power=self._sunk,
            embodied_rate=self.embodied_rate,
            first=first,
        )

    def clairvoyant(self, archive: Archive, start: int) -> Policy:
        """Return the policy that knows every hour of the window: the least that can be emitted."""
        now = datetime.fromtimestamp(start * 3600, timezone.utc)
        hours = math.ceil(self.window_hours - 1e-9)
        values = archive.actual[start - archive.first : start - archive.first + hours]
        job = Job(
            self.work_hours,
            deadline=now + timedelta(hours=self.window_hours),
            levels=self.levels,
            hold_power=self.hold_power,
            resume_cost=self.resume_hours,
            pauses=self.pauses,
            idle_power=self._sunk,
            embodied_rate=self.embodied_rate,
            safety=0.0,
        )
        slots = plan(job, Forecast([now + timedelta(hours=hour) for hour in range(hours)], values), now).slots

        def follow(view: View) -> Choice:
            time = now + timedelta(hours=view.hour - start)
            return next(((slot.action, slot.level) for slot in slots if slot.start <= time < slot.end), policies.RUN)

        return follow


def summary(outcomes: dict[str, list[Simulator]], test: Backtest) -> dict[str, dict[str, float | None]]:
    """Return for each policy: saving against run-now, harm, delay, misses, exits, and share of the optimum's saving.

    ``saving_pct`` is that of the summed emissions. A deadline counts as missed where running now would have met it.
    """

    def emitted(job: Simulator) -> float:
        return (job.attributed if test.account == "attributed" else job.incremental) + job.embodied

    base = [emitted(job) for job in outcomes["run_now"]]
    total = math.fsum(base)
    best = 100 * (1 - math.fsum(map(emitted, outcomes[OPTIMAL])) / total) if total else 0.0
    feasible = test.work_hours <= test.window_hours + 1e-9
    result: dict[str, dict[str, float | None]] = {}
    for name, jobs in outcomes.items():
        runs = len(jobs)
        saving = 100 * (1 - math.fsum(map(emitted, jobs)) / total) if total else 0.0
        worse = sum(emitted(job) > reference * (1 + TIE) for job, reference in zip(jobs, base, strict=True))
        result[name] = {
            "saving_pct": saving,
            "worse_than_run_now_pct": 100 * worse / runs,
            "mean_delay_hours": math.fsum(job.hours - test.work_hours for job in jobs) / runs,
            "deadline_misses": sum(feasible and job.hours > test.window_hours + 1e-6 for job in jobs),
            "exits_per_run": sum(job.exits for job in jobs) / runs,
            "share_of_optimal": saving / best if best >= SMALLEST_OPTIMUM else None,
        }
    return {name: result[name] for name in (*POLICIES, OPTIMAL) if name in result}
