"""The replay: hides the future, keeps the deadline, and counts as a person would."""

from dataclasses import replace

import numpy as np
import pytest

from lightning_green.backtest.backtest import OPTIMAL, POLICIES, Backtest
from lightning_green.backtest.results import mean_of
from lightning_green.planning import Level
from tests.planning.archives import FIRST, archive

SHORT = Backtest(work_hours=6, window_hours=14, every_days=5)
THROTTLED = replace(SHORT, throttle=(Level(0.78, 0.9),))


def corrupted(zone, hour, lag, seed):
    """Return ``zone`` with everything that is not known in ``hour`` replaced by nonsense."""
    rng = np.random.default_rng(seed)
    actual, forecasts = zone.actual.copy(), zone.forecasts.copy()
    later = max(0, hour - lag + 1 - zone.first)
    actual[later:] = rng.uniform(0, 2000, len(actual) - later)
    forecasts[zone.issued > hour] = rng.uniform(0, 2000, forecasts[zone.issued > hour].shape)
    return replace(zone, actual=actual, forecasts=forecasts)


@pytest.mark.parametrize("name", sorted(POLICIES))
@pytest.mark.parametrize("lag", [0, 1, 3])
def test_nothing_later_reaches_a_policy(name, lag):
    """What a policy does in an hour is the same whatever comes after it: its whole past is replayed on nonsense."""
    test = replace(THROTTLED, lag_hours=lag)
    zone = archive(days=16)
    start = FIRST + 10 * 24 + 9
    for hour in range(start, start + 8):
        made = []
        for seed in (None, 1, 2):
            seen = zone if seed is None else corrupted(zone, hour, lag, seed)
            policy, log = POLICIES[name](), []
            # An earlier run first, so that whatever a policy remembers has been filled.
            test.replay(seen, start - 24, lambda view, policy=policy: policy(view))

            def spy(view, policy=policy, log=log, stop=hour):
                choice = policy(view)
                if view.hour <= stop:
                    log.append((view.hour, choice))
                return choice

            test.replay(seen, start, spy)
            made.append(log)
        assert made[0], "the policy was never asked"
        assert made[0] == made[1] == made[2]


def test_a_view_ends_where_knowledge_does():
    zone = archive(days=16)
    views = []
    SHORT.replay(zone, FIRST + 9 * 24 + 9, lambda view: (views.append(view), ("run", None))[1])
    for view in views:
        assert view.known_until == view.hour
        assert len(view.past) == view.hour - zone.first
        assert view.issued[-1] <= view.hour
        assert len(view.forecasts) == len(view.issued)


@pytest.mark.parametrize(
    "test",
    [SHORT, THROTTLED, replace(SHORT, pauses=frozenset({"hold"}), resume_hours=0.0), replace(SHORT, work_hours=13.3),
     replace(SHORT, window_hours=10.5), replace(THROTTLED, work_hours=9.7, window_hours=10.0, lag_hours=2)],
)  # fmt: skip
def test_no_deadline_is_missed_and_nothing_beats_the_optimum(test):
    result = test.run(archive(days=30, wind=120.0))
    assert set(result) == set(test.names)
    for name, row in result.items():
        assert row["deadline_misses"] == 0, name
        assert row["saving_pct"] <= result[OPTIMAL]["saving_pct"] + 1e-9, name
    assert result["run_now"]["saving_pct"] == 0
    assert result["run_now"]["mean_delay_hours"] == 0
    assert result[OPTIMAL]["worse_than_run_now_pct"] == 0


def test_a_stubborn_policy_is_made_to_run_in_time():
    job = SHORT.replay(archive(days=16), FIRST + 9 * 24, lambda view: ("exit", None))
    assert job.hours == 14
    assert job.exits == 1


def test_work_that_does_not_fit_is_done_at_once_and_is_nobodys_miss():
    result = replace(SHORT, work_hours=20.0).run(archive(days=16))
    assert all(row["mean_delay_hours"] == 0 and row["deadline_misses"] == 0 for row in result.values())


def test_the_planner_corrects_a_biased_forecast():
    """Forecasts that are 150 g too low every morning mislead whoever believes them."""
    zone = archive(days=40, bias=150.0, wind=20.0, solar=100.0)
    test = replace(SHORT, work_hours=8, window_hours=30, start_hour=3, every_days=2)
    result = test.run(zone, ["planner", "lowest_slots"])
    assert result["planner"]["saving_pct"] > result["lowest_slots"]["saving_pct"] + 2
    assert result["planner"]["saving_pct"] > 0.8 * result[OPTIMAL]["saving_pct"]


def test_first_day_without_a_past_runs_now():
    zone = archive(days=16, issues=False)
    job = SHORT.replay(zone, FIRST, POLICIES["planner"]())
    assert job.hours == 6


def test_starts_need_history_or_forecasts_and_a_whole_window():
    with_issues, without = archive(days=16), archive(days=16, issues=False)
    assert SHORT.starts(with_issues)[0] == FIRST + 9
    assert SHORT.starts(without)[0] == FIRST + 7 * 24 + 9
    assert max(SHORT.starts(without)) + 14 <= without.end
    with pytest.raises(ValueError, match="too few for a run"):
        SHORT.run(archive(days=7, issues=False))


def test_summary_by_hand():
    zone = replace(archive(days=9, issues=False), actual=np.full(9 * 24, 100.0))
    zone.actual[7 * 24 + 9 : 7 * 24 + 11] = 300.0
    test = Backtest(work_hours=4, window_hours=8, resume_hours=0.5, every_days=3)
    result = test.run(zone, ["run_now"])
    assert result[OPTIMAL]["saving_pct"] == pytest.approx(100 * (1 - 450 / 800))
    assert result[OPTIMAL]["mean_delay_hours"] == 2
    assert result[OPTIMAL]["exits_per_run"] == 1
    assert result[OPTIMAL]["share_of_optimal"] == 1


def test_share_is_null_where_there_is_nothing_to_save_and_the_mean_is_a_ratio():
    flat = replace(archive(days=9), actual=np.full(9 * 24, 100.0))
    nothing = SHORT.run(flat, ["run_now"])
    assert nothing["run_now"]["share_of_optimal"] is None
    row = {"worse_than_run_now_pct": 0.0, "mean_delay_hours": 0.0, "deadline_misses": 1, "exits_per_run": 0.0}
    zones = [
        {"zone": zone, "runs": 2, "policies": {
            "planner": {**row, "saving_pct": saving, "share_of_optimal": None},
            OPTIMAL: {**row, "saving_pct": best, "share_of_optimal": None},
        }}
        for zone, saving, best in (("a", 0.1, 0.2), ("b", 6.0, 10.0))
    ]  # fmt: skip
    mean = mean_of(zones)
    assert mean["policies"]["planner"]["share_of_optimal"] == pytest.approx(6.1 / 10.2)
    assert mean["policies"]["planner"]["deadline_misses"] == 2
    assert mean["runs"] == 4


def test_incremental_account_and_embodied_rate_change_the_reckoning():
    zone = archive(days=16)
    holds = replace(SHORT, pauses=frozenset({"hold"}), resume_hours=0.0, start_hour=3)
    plain = holds.run(zone, ["threshold"])["threshold"]["saving_pct"]
    sunk = replace(holds, account="incremental", idle_power=0.2).run(zone, ["threshold"])["threshold"]["saving_pct"]
    built = replace(holds, embodied_rate=20.0).run(zone, ["threshold"])["threshold"]["saving_pct"]
    assert sunk > plain > built


@pytest.mark.parametrize("account", [{"account": "incremental", "idle_power": 0.2}, {"embodied_rate": 30.0}])
def test_nothing_beats_the_optimum_of_another_account(account):
    test = replace(THROTTLED, start_hour=3, **account)
    result = test.run(archive(days=30, wind=120.0))
    best = result[OPTIMAL]["saving_pct"]
    assert all(row["saving_pct"] <= best + 1e-9 for row in result.values())
    assert result["planner"]["saving_pct"] > 0.7 * best


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [({"work_hours": 0}, "work_hours"), ({"window_hours": -1}, "window_hours"), ({"hold_power": 1.1}, "hold_power"),
     ({"start_hour": 24}, "start_hour"), ({"every_days": 0}, "every_days"), ({"lag_hours": -1}, "lag_hours"),
     ({"pauses": frozenset({"sleep"})}, "pauses"), ({"account": "both"}, "account")],
)  # fmt: skip
def test_bad_arguments_are_refused(kwargs, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        Backtest(**kwargs)
