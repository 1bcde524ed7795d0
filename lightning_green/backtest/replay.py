"""Replay one run hour by hour under a policy, or under the optimal one."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

import numpy as np
from numpy.typing import NDArray

from lightning_green.backtest.observation import Observation
from lightning_green.backtest.policies import RUN, Choice, Policy, Start, next_choice
from lightning_green.backtest.scenario import Scenario
from lightning_green.backtest.simulator import FULL, Simulator
from lightning_green.backtest.zone_archive import ZoneArchive
from lightning_green.planning.forecast import Forecast
from lightning_green.planning.planner import plan


def replay(
    scenario: Scenario, archive: ZoneArchive, start: int, policy: Policy, prices: NDArray[np.float64] | None = None
) -> Simulator:
    """Return the finished run under ``policy``. Without slack the job runs, whatever the policy returns.

    Args:
        scenario: The job and its costs.
        archive: Recorded intensities and forecasts.
        start: Start of the run in hours since 1970 (UTC).
        policy: Gets the information that was available in each hour, and nothing later.
        prices: Electricity price of every hour of the archive in money per kWh, to count the cost; None for no cost.

    Raises:
        ValueError: If the archive ends before the run.

    """
    job = scenario.simulator()
    first: Observation | None = None
    hour = start
    while not job.done:
        to_deadline = scenario.window_hours - (hour - start)
        choice: Choice = RUN
        needed = job.remaining_work + job.hours_to_work
        has_slack = to_deadline - 1 >= needed - 1e-9
        may_throttle = to_deadline >= needed - 1e-9 and len(scenario.levels) > 1
        may_wait = to_deadline >= needed - 1e-9 and job.state == "exit" and job.return_time > 0  # part of the hour
        wait = 0.0
        if (has_slack or may_throttle or may_wait) and not job.returning:
            observation = observe(scenario, archive, hour, job, to_deadline, first)
            first = first or observation
            answer = policy(observation)
            if isinstance(answer, Start):
                fits = job.remaining_work + scenario.return_hours + answer.wait <= to_deadline + 1e-9
                wait = answer.wait if fits else 0.0
            else:
                choice = _enforce_deadline(answer, to_deadline, job)
        action, level = choice
        if hour >= archive.end:
            raise ValueError(f"{archive.zone} ends before the run does.")
        intensity = float(archive.actual[hour - archive.first])
        price = 0.0 if prices is None else float(prices[hour - archive.first])
        if wait:
            job.step("exit", wait, intensity, price=price)
        job.step(action, 1.0 - wait, intensity, level or FULL, price)
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
    lag = min(scenario.lag_hours, 1) if scenario.perfect_hours else scenario.lag_hours
    until = min(archive.end, hour - lag + 1)
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
        perfect=archive.actual[hour - archive.first : hour - archive.first + scenario.perfect_hours],
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

    def optimal(observation: Observation) -> Choice | Start:
        time = now + timedelta(hours=observation.hour - start)
        return next_choice(slots, time, observation)

    return optimal


def _enforce_deadline(choice: Choice, to_deadline: float, job: Simulator) -> Choice:
    """Return ``choice``, or to run if the deadline would be missed after it."""
    (action, level), work, delay = choice, job.remaining_work, job.hours_to_work
    speed = level.speed if action == "throttle" and level else 1.0 if action == "run" else 0.0
    if speed and delay + work / speed <= min(1.0, to_deadline) + 1e-9:
        return choice
    if speed:
        later = work - speed * max(0.0, 1.0 - delay) + max(0.0, delay - 1.0)
    else:
        later = work + (job.return_time if action == "exit" else delay)
    return choice if later <= to_deadline - 1 + 1e-9 else RUN
