"""A replay hides later data from the policy and meets the deadline."""

from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest

from lightning_green.backtest import POLICIES, build_policy
from lightning_green.backtest.backtest import Backtest
from lightning_green.backtest.policies import Start
from lightning_green.planning import Level
from tests.helpers.zone_archives import FIRST, make_archive

SHORT = Backtest(work_hours=6, window_hours=14, every_days=5)
THROTTLED = replace(SHORT, throttle=(Level(0.78, 0.9),))


def corrupted(zone, hour, lag, seed):
    """Return ``zone`` with random values in place of all data that is not known in ``hour``."""
    rng = np.random.default_rng(seed)
    actual, forecasts = zone.actual.copy(), zone.forecasts.copy()
    later = max(0, hour - lag + 1 - zone.first)
    actual[later:] = rng.uniform(0, 2000, len(actual) - later)
    forecasts[zone.issued > hour] = rng.uniform(0, 2000, forecasts[zone.issued > hour].shape)
    return replace(zone, actual=actual, forecasts=forecasts)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("name", sorted(POLICIES))
@pytest.mark.parametrize("lag", [0, 1, 3])
def test_policy_gets_no_later_data(name, lag):
    """The choices up to an hour stay the same if all later data is random."""
    test = replace(THROTTLED, lag_hours=lag)
    zone = make_archive(days=16)
    start = FIRST + 10 * 24 + 9
    for hour in range(start, start + 8):
        made = []
        for seed in (None, 1, 2):
            seen = zone if seed is None else corrupted(zone, hour, lag, seed)
            policy, log = build_policy(name), []
            # An earlier run fills the caches of the policy.
            test.replay(seen, start - 24, lambda observation, policy=policy: policy(observation))

            def spy(observation, policy=policy, log=log, stop=hour):
                choice = policy(observation)
                if observation.hour <= stop:
                    log.append((observation.hour, choice))
                return choice

            test.replay(seen, start, spy)
            made.append(log)
        assert made[0], "the policy was never called"
        assert made[0] == made[1] == made[2]


def test_observation_ends_at_the_last_known_hour():
    zone = make_archive(days=16)
    observations = []
    SHORT.replay(zone, FIRST + 9 * 24 + 9, lambda observation: (observations.append(observation), ("run", None))[1])
    assert len(observations) == 6, "one decision per hour of work"
    for observation in observations:
        assert observation.known_until == observation.hour
        assert len(observation.history) == observation.hour - zone.first
        assert observation.issued[-1] <= observation.hour
        assert len(observation.forecasts) == len(observation.issued)


def test_policy_that_never_runs_meets_the_deadline():
    job = SHORT.replay(make_archive(days=16), FIRST + 9 * 24, lambda observation: ("exit", None))
    assert job.hours == 14
    assert job.exits == 1


@pytest.mark.parametrize("return_hours", [1 / 6, 1.0, 1.5])
@pytest.mark.parametrize("name", ["planner", "threshold", "lowest_slots"])
def test_no_deadline_is_missed_with_the_time_to_return(name, return_hours):
    test = replace(THROTTLED, return_hours=return_hours, window_hours=9, work_hours=5.5)
    outcomes = test.outcomes(make_archive(days=30), (name,))
    assert sum(job.exits for job in outcomes["optimal"]) > 0
    assert max(job.hours for jobs in outcomes.values() for job in jobs) <= 9 + 1e-6


def test_job_starts_early_so_that_its_work_begins_at_the_planned_time():
    test, zone = replace(SHORT, return_hours=0.25), make_archive(days=16)
    hour = FIRST + 9 * 24 + 9
    choices = [("run", None), ("exit", None), Start(0.75)]
    job = test.replay(zone, hour, lambda observation: choices[min(observation.hour - hour, 3)]
                      if observation.hour - hour < 3 else ("run", None))  # fmt: skip
    assert job.hours == pytest.approx(6 + 2), "an exit of two hours includes the return"


def test_perfect_hours_are_recorded_values():
    test, zone = replace(SHORT, perfect_hours=3, lag_hours=4), make_archive(days=16)
    hour, seen = FIRST + 9 * 24 + 9, []
    test.replay(zone, hour, lambda observation: (seen.append(observation), ("run", None))[1])
    place = hour - FIRST
    assert seen[0].known_until == hour, "without the delay of four hours"
    assert seen[0].outlook()[:3].tolist() == zone.actual[place : place + 3].tolist()
    policy = build_policy("planner")
    forecast = policy.forecast(seen[0], datetime.fromtimestamp(hour * 3600, timezone.utc))
    assert forecast.values[:3].tolist() == zone.actual[place : place + 3].tolist()
    assert forecast.spread[:3].tolist() == [0.0] * 3
    assert forecast.spread[3] > 0
    every = replace(SHORT, perfect_hours=14, every_days=3).run(make_archive(days=30), ("planner",))
    assert every["planner"]["saving_pct"] == pytest.approx(every["optimal"]["saving_pct"], abs=0.3)
