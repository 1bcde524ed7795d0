"""``correct`` removes errors of earlier forecasts, uses no later data, and leaves exact forecasts unchanged."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from lightning_green.planning import Forecast, Job, plan
from lightning_green.planning.forecasting.correct import correct, remember
from lightning_green.planning.forecasting.history import hourly
from tests.helpers.zone_archives import available, issuance, make_archive, rms_error


def test_bias_of_earlier_issuances_is_removed():
    zone = make_archive(days=40, bias=120.0)
    before, after = [], []
    for day in range(15, 30, 2):
        newest, earlier, now = available(zone, day)
        better = correct(newest, earlier, now)
        before.append(rms_error(newest, zone, now))
        after.append(rms_error(better, zone, now))
    assert np.mean(after) < 0.5 * np.mean(before)


def test_spread_matches_the_standard_deviation_of_the_errors():
    zone = make_archive(days=60, bias=60.0)
    scores = []
    for day in range(20, 50):
        newest, earlier, now = available(zone, day)
        better = correct(newest, earlier, now)
        for lead in range(1, 48):
            place = better.times.index(now + timedelta(hours=lead))
            truth = zone.actual[int(now.timestamp() // 3600) + lead - zone.first]
            scores.append((better.values[place] - truth) / better.spread[place])
    assert 0.5 < np.std(scores) < 1.5


def test_recent_error_is_carried_forward_and_fades():
    """The newest forecast is 50 gCO2e/kWh too low. The next hours are raised, later ones less."""
    zone = make_archive(days=30, bias=0.0, wind=1.0)
    forecasts = zone.forecasts.copy()
    forecasts[5] = np.clip(forecasts[5] - 50, 0, None)
    newest, earlier, now = available(replace(zone, forecasts=forecasts), 5, days=4)
    better = correct(newest, earlier, now)
    change = {time: better.values[i] - newest.values[i] for i, time in enumerate(newest.times)}
    soon, late = change[now + timedelta(hours=1)], change[now + timedelta(hours=47)]
    assert 20 < soon < 60
    assert late < 0.7 * soon


def test_useless_forecast_is_replaced_by_the_history_only_prediction():
    """The intensity depends on the sun only and the forecasts are noise."""
    zone = make_archive(days=40, bias=0.0, wind=3.0)
    noise = np.random.default_rng(5).uniform(50, 500, zone.forecasts.shape)
    before, after, alone = [], [], []
    for day in range(25, 35, 3):
        newest, earlier, now = available(replace(zone, forecasts=noise), day, days=20)
        before.append(rms_error(newest, zone, now))
        after.append(rms_error(correct(newest, earlier, now), zone, now))
        alone.append(rms_error(correct(replace(newest, times=[], values=[], issued_at=None), [], now), zone, now))
    assert np.mean(after) < 0.45 * np.mean(before)
    assert np.mean(after) < np.mean(alone) + 0.3 * (np.mean(before) - np.mean(alone))


def test_history_only_prediction_is_better_than_yesterday():
    zone = make_archive(days=40, wind=40.0)
    ours, naive = [], []
    for day in range(15, 35, 2):
        newest, _, now = available(zone, day)
        alone = correct(replace(newest, times=[], values=[], issued_at=None), [], now)
        ours.append(rms_error(alone, zone, now))
        first = int(now.timestamp() // 3600) - zone.first
        steps = np.arange(40)
        naive.append(np.sqrt(np.mean((zone.actual[first - 24 + steps % 24] - zone.actual[first + steps]) ** 2)))
    assert np.mean(ours) < 0.9 * np.mean(naive)


def test_exact_forecast_is_returned_unchanged():
    zone = make_archive(days=30)
    exact = np.array([zone.actual[h - zone.first : h - zone.first + 96] for h in zone.issued[:20]])
    newest, earlier, now = available(replace(zone, issued=zone.issued[:20], forecasts=exact), 19)
    assert correct(newest, earlier, now) is newest


def test_forecast_without_earlier_issuances_is_returned_unchanged():
    newest, earlier, now = available(make_archive(days=30), 20)
    assert correct(newest, [], now) is newest
    assert correct(newest, [newest], now) is newest
    assert correct(newest, earlier[-1:], now) is not newest


def test_remember_keeps_one_issuance_per_hour_for_28_days():
    zone, kept = make_archive(days=40), []
    for number in range(35):
        newest = issuance(zone, number)
        kept = remember(remember(kept, newest), newest)
    assert [kept[0].issued_at, kept[-1].issued_at] == [issuance(zone, 6).issued_at, issuance(zone, 34).issued_at]
    assert len(kept) == 29
    assert remember(kept, None) == remember(kept, replace(newest, issued_at=None)) == kept


@pytest.mark.parametrize("missing", ["all", "recent"])
def test_forecast_without_recent_history_is_returned_unchanged(missing):
    newest, earlier, now = available(make_archive(days=30), 20)
    keep = 0 if missing == "all" else -60
    cut = {"history_times": newest.history_times[:keep], "history_values": newest.history_values[:keep]}
    assert correct(replace(newest, **cut), earlier, now).values.tolist() == newest.values.tolist()


def test_short_forecast_is_extended_from_the_history():
    newest, earlier, now = available(make_archive(days=30), 20)
    short = replace(newest, times=newest.times[:24], values=newest.values[:24])
    better = correct(short, earlier, now)
    assert better.end >= now + timedelta(hours=95)
    assert better.times == sorted(better.times)


def test_half_hourly_forecast_keeps_its_shape():
    zone = make_archive(days=30, bias=80.0)
    newest, earlier, now = available(zone, 20)
    times = [time + timedelta(minutes=minutes) for time in newest.times for minutes in (0, 30)]
    values = np.repeat(newest.values, 2) + np.tile([5.0, -5.0], len(newest.times))
    fine = correct(replace(newest, times=times, values=values), earlier, now)
    coarse = correct(newest, earlier, now)
    assert fine.values[: len(values)][20:60:2] - fine.values[: len(values)][21:61:2] == pytest.approx(10.0)
    assert hourly(fine.seconds, fine.values, full=False)[1][10:90] == pytest.approx(coarse.values[10:90])


def test_gaps_other_kinds_and_missing_issue_times_are_ignored():
    zone = make_archive(days=30, bias=80.0)
    newest, earlier, now = available(zone, 20)
    keep = [place for place in range(len(newest.history_times)) if place % 7]
    gappy = replace(
        newest,
        history_times=[newest.history_times[place] for place in keep],
        history_values=newest.history_values[keep],
    )
    other = [replace(earlier[0], kind="marginal/direct"), replace(earlier[1], issued_at=None), Forecast([], [])]
    better = correct(gappy, [*other, *earlier[5:]], now)
    assert np.isfinite(better.values).all()
    assert rms_error(better, zone, now) < rms_error(newest, zone, now)


def test_issuances_of_another_kind_are_ignored():
    newest, earlier, now = available(make_archive(days=30, bias=80.0), 20)
    marginal = [replace(one, values=one.values * 3, kind="marginal/lifecycle") for one in earlier]
    assert correct(newest, marginal, now) is newest
    mixed = correct(newest, [*marginal, *earlier], now)
    assert mixed.values.tolist() == correct(newest, earlier, now).values.tolist()
    assert mixed.kind == newest.kind


def test_issuances_from_the_future_are_ignored():
    zone = make_archive(days=30, bias=80.0)
    newest, earlier, now = available(zone, 20)
    later = [issuance(zone, number) for number in range(21, 27)]
    assert correct(newest, [*earlier, *later], now).values.tolist() == correct(newest, earlier, now).values.tolist()


def test_corrected_forecast_makes_a_better_plan():
    """Forecasts are 150 g too low in the morning. Only the corrected forecast waits for the sun."""
    zone = make_archive(days=30, bias=150.0, wind=5.0, solar=150.0)
    newest, earlier, now = available(zone, 20, hour=0)
    job = Job(5, deadline=now + timedelta(hours=24), safety=0.0)

    def emitted(forecast):
        first = int(now.timestamp() // 3600) - zone.first
        return sum(
            float(zone.actual[first + int((slot.start - now).total_seconds() // 3600)])
            for slot in plan(job, forecast, now).slots
            if slot.action == "run"
        )

    assert emitted(correct(newest, earlier, now)) < 0.9 * emitted(newest)


def test_naive_now_raises():
    newest, earlier, now = available(make_archive(days=30), 20)
    with pytest.raises(ValueError, match="`now` should have a time zone"):
        correct(newest, earlier, now.replace(tzinfo=None))
