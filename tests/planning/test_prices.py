"""Price series: means, gaps, estimates, records."""

import json
import math

import numpy as np
import pytest

from lightning_green.planning.prices import PriceSeries

DAY = 24
HOUR = 3600.0


def hourly(prices, first=0):
    starts = (first + np.arange(len(prices))) * HOUR
    return PriceSeries(starts, starts + HOUR, prices)


def test_means_are_those_of_a_fine_sum():
    rng = np.random.default_rng(0)
    prices = hourly(rng.normal(0.1, 0.2, 50))
    fine = np.repeat(prices.prices, 3600)
    for _ in range(50):
        first, last = sorted(rng.integers(0, 50 * 3600, 2).tolist())
        mean, known = prices.means([first], [last + 1])
        assert mean[0] == pytest.approx(fine[first : last + 1].mean(), abs=1e-12)
        assert known[0] == 1.0


def test_gap_reduces_the_known_fraction_and_not_the_mean():
    prices = PriceSeries([0, 2 * HOUR], [HOUR, 3 * HOUR], [0.1, 0.3])
    mean, known = prices.means([0, HOUR, 3 * HOUR], [3 * HOUR, 2 * HOUR, 4 * HOUR])
    assert mean.tolist() == pytest.approx([0.2, 0.0, 0.0])
    assert known.tolist() == pytest.approx([2 / 3, 0.0, 0.0])


def test_empty_interval_has_the_price_of_its_moment():
    mean, known = hourly([0.1, 0.2]).means([HOUR, -1.0, 5 * HOUR], [HOUR, -1.0, 5 * HOUR])
    assert (mean.tolist(), known.tolist()) == ([0.2, 0.0, 0.0], [1.0, 0.0, 0.0])


def test_hours_after_the_end_have_the_mean_of_the_same_hour():
    days = np.concatenate([np.arange(DAY) / 100 + day for day in range(3)])
    mean, known = hourly(days).outlook(np.array([75 * HOUR, 70 * HOUR]), np.array([76 * HOUR, 73 * HOUR]))
    assert known.tolist() == pytest.approx([0.0, 2 / 3])
    assert mean[0] == pytest.approx(1.03)  # 03:00 over three days
    assert mean[1] == pytest.approx((2.22 + 2.23 + 1.0) / 3)


def test_estimate_of_a_long_slot_is_the_mean_of_its_hours():
    prices = hourly(np.arange(DAY) / 10)
    mean, known = prices.outlook(np.array([48 * HOUR]), np.array([72 * HOUR]))
    assert (mean[0], known[0]) == (pytest.approx(1.15), 0.0)


def test_changes_are_the_edges_between_two_times():
    assert hourly([0.1] * 4).changes(0.0, 3 * HOUR).tolist() == [HOUR, 2 * HOUR]
    assert PriceSeries(constant=0.3).changes(0.0, HOUR).tolist() == []


def test_record_survives_json():
    prices = hourly(np.random.default_rng(0).normal(0.1, 0.2, 1000))
    again = PriceSeries.from_json(json.loads(json.dumps(prices.to_json(500 * HOUR))))
    assert len(again.starts) < 400
    span = np.array([500 * HOUR]), np.array([548 * HOUR])
    assert again.means(*span)[0] == pytest.approx(prices.means(*span)[0])
    assert PriceSeries.from_json(PriceSeries(constant=0.3).to_json(0.0)).constant == 0.3


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"starts": [0], "ends": [1], "prices": ["a"]},
        {"starts": [0, 1], "ends": [1], "prices": [1]},
        {"starts": [0], "ends": [0], "prices": [1]},
        {"starts": [0], "ends": [1], "prices": [math.nan]},
        {"starts": [0, 1], "ends": [5, 6], "prices": [1, 2]},
        {"constant": math.inf},
        {"constant": "x"},
        {"starts": [], "ends": [], "prices": []},
    ],
)
def test_damaged_record_is_refused(content):
    with pytest.raises(ValueError, match=r".+"):
        PriceSeries.from_json(content)


def test_long_record_has_hourly_means():
    starts = 30.0 * np.arange(14 * 24 * 120)
    series = PriceSeries(starts, starts + 30.0, np.arange(len(starts)) % 120)
    record = series.to_json(now=7 * 24 * 3600.0)
    assert len(json.dumps(record)) < 100_000
    assert set(record["prices"]) == {59.5}
    assert np.diff(record["starts"]).tolist() == [3600.0] * (len(record["starts"]) - 1)


def test_outlook_of_an_empty_interval_is_no_error():
    with np.errstate(all="raise"):
        mean, _ = hourly([1.0, 2.0]).outlook(np.array([9e9]), np.array([9e9]))
    assert np.isfinite(mean).all()
