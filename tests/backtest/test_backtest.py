"""A backtest hides later data, meets every deadline and summarizes its runs."""

from dataclasses import replace

import numpy as np
import pytest

from lightning_green.backtest import POLICIES, Backtest, build_policy
from lightning_green.backtest.results import OPTIMAL
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
    for observation in observations:
        assert observation.known_until == observation.hour
        assert len(observation.history) == observation.hour - zone.first
        assert observation.issued[-1] <= observation.hour
        assert len(observation.forecasts) == len(observation.issued)


@pytest.mark.parametrize(
    "test",
    [SHORT, THROTTLED, replace(SHORT, pauses=frozenset({"hold"}), resume_hours=0.0), replace(SHORT, work_hours=13.3),
     replace(SHORT, window_hours=10.5), replace(THROTTLED, work_hours=9.7, window_hours=10.0, lag_hours=2)],
)  # fmt: skip
def test_deadlines_are_met_and_no_policy_beats_the_optimum(test):
    result = test.run(make_archive(days=30, wind=120.0))
    assert set(result) == set(test.names)
    for name, row in result.items():
        assert row["deadline_misses"] == 0, name
        assert row["saving_pct"] <= result[OPTIMAL]["saving_pct"] + 1e-9, name
    assert result["run_now"]["saving_pct"] == 0
    assert result["run_now"]["mean_delay_hours"] == 0
    assert result[OPTIMAL]["worse_than_run_now_pct"] == 0


def test_policy_that_never_runs_meets_the_deadline():
    job = SHORT.replay(make_archive(days=16), FIRST + 9 * 24, lambda observation: ("exit", None))
    assert job.hours == 14
    assert job.exits == 1


def test_infeasible_deadline_runs_at_once_and_counts_no_miss():
    result = replace(SHORT, work_hours=20.0).run(make_archive(days=16))
    assert all(row["mean_delay_hours"] == 0 and row["deadline_misses"] == 0 for row in result.values())


def test_planner_corrects_a_biased_forecast():
    """Forecasts are 150 gCO2e/kWh too low in the morning, which misleads policies without a correction."""
    zone = make_archive(days=40, bias=150.0, wind=20.0, solar=100.0)
    test = replace(SHORT, work_hours=8, window_hours=30, start_hour=3, every_days=2)
    result = test.run(zone, ["planner", "lowest_slots"])
    assert result["planner"]["saving_pct"] > result["lowest_slots"]["saving_pct"] + 2
    assert result["planner"]["saving_pct"] > 0.8 * result[OPTIMAL]["saving_pct"]


def test_planner_without_history_runs_now():
    zone = make_archive(days=16, forecasts=False)
    job = SHORT.replay(zone, FIRST, build_policy("planner"))
    assert job.hours == 6


def test_starts_need_history_or_forecasts_and_a_complete_window():
    with_forecasts, without = make_archive(days=16), make_archive(days=16, forecasts=False)
    assert SHORT.starts(with_forecasts)[0] == FIRST + 9
    assert SHORT.starts(without)[0] == FIRST + 7 * 24 + 9
    assert max(SHORT.starts(without)) + 14 <= without.end
    with pytest.raises(ValueError, match="too few for a run"):
        SHORT.run(make_archive(days=7, forecasts=False))


def test_summary_matches_hand_computed_figures():
    zone = replace(make_archive(days=9, forecasts=False), actual=np.full(9 * 24, 100.0))
    zone.actual[7 * 24 + 9 : 7 * 24 + 11] = 300.0
    test = Backtest(work_hours=4, window_hours=8, resume_hours=0.5, every_days=3)
    result = test.run(zone, ["run_now"])
    assert result[OPTIMAL]["saving_pct"] == pytest.approx(100 * (1 - 450 / 800))
    assert result[OPTIMAL]["mean_delay_hours"] == 2
    assert result[OPTIMAL]["exits_per_run"] == 1
    assert result[OPTIMAL]["share_of_optimal"] == 1


def test_incremental_account_and_embodied_rate_change_the_saving():
    zone = make_archive(days=16)
    holds = replace(SHORT, pauses=frozenset({"hold"}), resume_hours=0.0, start_hour=3)
    attributed = holds.run(zone, ["threshold"])["threshold"]["saving_pct"]
    incremental = replace(holds, account="incremental", idle_power=0.2).run(zone, ["threshold"])["threshold"][
        "saving_pct"
    ]
    embodied = replace(holds, embodied_rate=20.0).run(zone, ["threshold"])["threshold"]["saving_pct"]
    assert incremental > attributed > embodied


@pytest.mark.parametrize("account", [{"account": "incremental", "idle_power": 0.2}, {"embodied_rate": 30.0}])
def test_no_policy_beats_the_optimum_of_another_account(account):
    test = replace(THROTTLED, start_hour=3, **account)
    result = test.run(make_archive(days=30, wind=120.0))
    best = result[OPTIMAL]["saving_pct"]
    assert all(row["saving_pct"] <= best + 1e-9 for row in result.values())
    assert result["planner"]["saving_pct"] > 0.7 * best


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [({"work_hours": 0}, "work_hours"), ({"window_hours": -1}, "window_hours"), ({"hold_power": 1.1}, "hold_power"),
     ({"start_hour": 24}, "start_hour"), ({"every_days": 0}, "every_days"), ({"lag_hours": -1}, "lag_hours"),
     ({"pauses": frozenset({"sleep"})}, "pauses"), ({"account": "both"}, "account")],
)  # fmt: skip
def test_invalid_argument_raises(kwargs, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        Backtest(**kwargs)
