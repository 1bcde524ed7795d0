"""A replay hides later data from the policy and meets the deadline."""

from dataclasses import replace

import numpy as np
import pytest

from lightning_green.backtest import POLICIES, build_policy
from lightning_green.backtest.backtest import Backtest
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
