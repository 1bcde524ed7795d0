"""Replay one run hour by hour under a policy, or under the optimal one."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

import numpy as np

from lightning_green.backtest.observation import Observation
from lightning_green.backtest.policies import RUN, Choice, Policy
from lightning_green.backtest.scenario import Scenario
from lightning_green.backtest.simulator import FULL, Simulator
from lightning_green.backtest.zone_archive import ZoneArchive
from lightning_green.planning.forecast import Forecast
from lightning_green.planning.planner import plan


def replay(scenario: Scenario, archive: ZoneArchive, start: int, policy: Policy) -> Simulator:
    """Return the finished run under ``policy``. Without slack the job runs, whatever the policy returns.

    Args:
        scenario: The job and its costs.
        archive: Recorded intensities and forecasts.
        start: Start of the run in hours since 1970 (UTC).
        policy: Gets the information that was available in each hour, and nothing later.

    Raises:
        ValueError: If the archive ends before the run.

    """
    job = scenario.simulator()
    first: Observation | None = None
    hour = start
    while not job.done:
        to_deadline = scenario.window_hours - (hour - start)
        choice: Choice = RUN
        has_slack = to_deadline - 1 >= job.remaining_work - 1e-9
        may_throttle = to_deadline >= job.remaining_work - 1e-9 and len(scenario.levels) > 1
        if has_slack or may_throttle:
            observation = observe(scenario, archive, hour, job, to_deadline, first)
            first = first or observation
            choice = _enforce_deadline(policy(observation), to_deadline, job.remaining_work)
        action, level = choice
        if hour >= archive.end:
            raise ValueError(f"{archive.zone} ends before the run does.")
        job.step(action, 1.0, float(archive.actual[hour - archive.first]), level or FULL)
        hour += 1
    return job


def observe(
    scenario: Scenario,
    archive: ZoneArchive,
    hour: int,
    job: Simulator,
    to_deadline: float,
    first: Observation | None,
) -> Observation:
    """Return the information available at the start of ``hour``.

    It consists of the intensities up to ``hour - lag_hours`` and the forecasts issued by ``hour``.
    """
    until = min(archive.end, hour - scenario.lag_hours + 1)
    issuances = int(np.searchsorted(archive.issued, hour, side="right"))
    return Observation(
        hour=hour,
        history=archive.actual[: max(0, until - archive.first)],
        known_until=max(archive.first, until),
        issued=archive.issued[:issuances],
        forecasts=archive.forecasts[:issuances],
        remaining_work=job.remaining_work,
        hours_to_deadline=to_deadline,
        state=job.state,
        scenario=scenario,
        first=first,
    )


def optimal_policy(scenario: Scenario, archive: ZoneArchive, start: int) -> Policy:
    """Return the policy with the lowest possible emissions, planned with the recorded intensity of every hour.

    Args:
        scenario: The job and its costs.
        archive: Recorded intensities.
        start: Start of the run in hours since 1970 (UTC).

    """
    now = datetime.fromtimestamp(start * 3600, timezone.utc)
    hours = math.ceil(scenario.window_hours - 1e-9)
    values = archive.actual[start - archive.first : start - archive.first + hours]
    forecast = Forecast([now + timedelta(hours=hour) for hour in range(hours)], values)
    slots = plan(scenario.job(start, scenario.work_hours, scenario.window_hours), forecast, now).slots

    def optimal(observation: Observation) -> Choice:
        time = now + timedelta(hours=observation.hour - start)
        return next(((slot.action, slot.level) for slot in slots if slot.start <= time < slot.end), RUN)

    return optimal


def _enforce_deadline(choice: Choice, to_deadline: float, work: float) -> Choice:
    """Return ``choice``, or to run if the deadline would be missed after it."""
    action, level = choice
    speed = level.speed if action == "throttle" and level else 1.0 if action == "run" else 0.0
    if speed and work / speed <= min(1.0, to_deadline) + 1e-9:
        return choice
    return choice if work - speed <= to_deadline - 1 + 1e-9 else RUN
