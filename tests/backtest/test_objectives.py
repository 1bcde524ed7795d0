"""Carbon only, cost only and both, on a synthetic grid with synthetic prices."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lightning_green.backtest import Backtest, compare_objectives
from lightning_green.backtest.scenario import HOUR
from lightning_green.planning import PriceSeries
from tests.helpers.zone_archives import make_archive

TEST = Backtest(work_hours=4, window_hours=16, every_days=4, resume_hours=0.0)


@pytest.fixture(scope="module")
def archive():
    return make_archive(days=20)


def evening_prices(archive, low=-0.05):
    """Return prices that are low at night, when the intensity of the archive is high."""
    hours = archive.first + np.arange(len(archive.actual))
    values = np.where((hours % 24 >= 20) | (hours % 24 < 4), low, 0.30)
    return PriceSeries(hours * HOUR, (hours + 1) * HOUR, values)


def test_each_objective_is_best_at_its_own_figure(archive):
    found = compare_objectives(TEST, archive, evening_prices(archive), 0.5)
    rows = found.objectives
    assert list(rows) == ["run_now", "carbon", "cost", "both"]
    assert (found.runs, found.runs_without_price) == (len(TEST.starts(archive)), 0)
    assert rows["carbon"]["gco2e_per_kw"] == min(row["gco2e_per_kw"] for row in rows.values())
    assert rows["cost"]["cost_per_kw"] == min(row["cost_per_kw"] for row in rows.values())
    assert rows["both"]["total_per_kw"] == min(row["total_per_kw"] for row in rows.values())
    assert rows["run_now"]["emissions_saving_pct"] == rows["run_now"]["cost_saving_pct"] == 0.0
    assert rows["cost"]["cost_saving_pct"] > 100.0  # the cost becomes an income
    assert rows["cost"]["emissions_saving_pct"] < 0.0


def test_figures_are_those_of_the_backtest(archive):
    found = compare_objectives(TEST, archive, evening_prices(archive), 0.1).objectives
    saving = TEST.run(archive, ("planner",))["planner"]["saving_pct"]
    assert found["carbon"]["emissions_saving_pct"] == pytest.approx(saving)


def test_constant_price_is_paid_for_the_energy_of_the_work(archive):
    found = compare_objectives(TEST, archive, PriceSeries(constant=0.25), 0.1).objectives
    assert found["run_now"]["cost_per_kw"] == pytest.approx(4 * 0.25)
    assert found["both"]["emissions_saving_pct"] == pytest.approx(found["carbon"]["emissions_saving_pct"], abs=2.0)


def test_runs_without_a_price_are_left_out_and_counted(archive):
    prices = evening_prices(archive)
    cut = prices.between(0.0, prices.starts[-1] - 8 * 24 * HOUR)
    found = compare_objectives(TEST, archive, cut, 0.1)
    assert found.runs_without_price > 0
    assert found.runs + found.runs_without_price == len(TEST.starts(archive))
    with pytest.raises(ValueError, match="has no prices for the"):
        compare_objectives(TEST, archive, PriceSeries([0.0], [HOUR], [0.1]), 0.1)


def test_prices_of_tomorrow_are_not_known_before_noon(archive):
    start = TEST.starts(archive)[1]
    prices = evening_prices(archive)
    for hour, days in ((start, 1), (start + 3, 2)):  # 09:00 and 12:00 UTC
        test = replace(TEST, prices=prices)
        known = test.job(hour, 4.0, 16.0).prices
        assert known.ends[-1] == (hour // 24 + days) * 24 * HOUR


def test_negative_cost_of_run_now_has_no_percentage(archive):
    found = compare_objectives(TEST, archive, PriceSeries(constant=-0.1), 0.1)
    assert found.objectives["both"]["cost_saving_pct"] is None
    assert found.table()[1][4] == "-"
    assert all(math.isfinite(row["total_per_kw"]) for row in found.objectives.values())
