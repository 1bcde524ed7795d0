"""The correction of a forecast: learns what was wrong, uses nothing later, and leaves alone what is right."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from lightning_green.planning import Forecast, Job, plan
from lightning_green.planning.forecasting.correct import correct, remember
from lightning_green.planning.forecasting.correction import LONGEST_LEAD, clues, history_share, learn
from lightning_green.planning.forecasting.history import Past, hourly
from tests.planning.archives import archive


def at(hour):
    return datetime.fromtimestamp(hour * 3600, timezone.utc)


def issue(zone, number, **kwargs):
    begin = int(zone.issued[number])
    times = [at(begin + lead) for lead in range(zone.forecasts.shape[1])]
    return Forecast(times, zone.forecasts[number], issued_at=at(begin), **kwargs)


def live(zone, day, hour=9, days=8):
    """Return the newest forecast of a day with its history, its predecessors, and the time."""
    now = zone.first + day * 24 + hour
    known = range(now - 24 * days, now)
    past = [float(zone.actual[place - zone.first]) for place in known]
    newest = issue(zone, day, history_times=[at(place) for place in known], history_values=past)
    return newest, [issue(zone, number) for number in range(day)], at(now)


def error(forecast, zone, now, hours=40):
    """Root mean square error over the coming hours."""
    there = dict(zip(forecast.times, forecast.values, strict=True))
    wrong = []
    for lead in range(hours):
        time = now + timedelta(hours=lead)
        wrong.append(there[time] - zone.actual[int(time.timestamp() // 3600) - zone.first])
    return float(np.sqrt(np.mean(np.square(wrong))))


def test_bias_of_earlier_issues_is_taken_off():
    zone = archive(days=40, bias=120.0)
    before, after = [], []
    for day in range(15, 30, 2):
        newest, earlier, now = live(zone, day)
        better = correct(newest, earlier, now)
        before.append(error(newest, zone, now))
        after.append(error(better, zone, now))
    assert np.mean(after) < 0.5 * np.mean(before)


def test_spread_is_about_as_wide_as_the_errors():
    zone = archive(days=60, bias=60.0)
    scores = []
    for day in range(20, 50):
        newest, earlier, now = live(zone, day)
        better = correct(newest, earlier, now)
        for lead in range(1, 48):
            place = better.times.index(now + timedelta(hours=lead))
            truth = zone.actual[int(now.timestamp() // 3600) + lead - zone.first]
            scores.append((better.values[place] - truth) / better.spread[place])
    assert 0.5 < np.std(scores) < 1.5


def test_error_of_the_last_hours_is_carried_on_and_fades():
    """The newest forecast is 50 too low since it was issued: the next hours are raised, later ones less."""
    zone = archive(days=30, bias=0.0, wind=1.0)
    forecasts = zone.forecasts.copy()
    forecasts[5] = np.clip(forecasts[5] - 50, 0, None)
    newest, earlier, now = live(replace(zone, forecasts=forecasts), 5, days=4)
    better = correct(newest, earlier, now)
    change = {time: better.values[i] - newest.values[i] for i, time in enumerate(newest.times)}
    soon, late = change[now + timedelta(hours=1)], change[now + timedelta(hours=47)]
    assert 20 < soon < 60
    assert late < 0.7 * soon


def test_a_useless_forecast_gives_way_to_history():
    """Where the sun is all there is and the forecasts are noise, what history alone says is taken instead."""
    zone = archive(days=40, bias=0.0, wind=3.0)
    noise = np.random.default_rng(5).uniform(50, 500, zone.forecasts.shape)
    before, after, alone = [], [], []
    for day in range(25, 35, 3):
        newest, earlier, now = live(replace(zone, forecasts=noise), day, days=20)
        before.append(error(newest, zone, now))
        after.append(error(correct(newest, earlier, now), zone, now))
        alone.append(error(correct(replace(newest, times=[], values=[], issued_at=None), [], now), zone, now))
    assert np.mean(after) < 0.45 * np.mean(before)
    assert np.mean(after) < np.mean(alone) + 0.3 * (np.mean(before) - np.mean(alone))


def test_history_alone_is_better_than_yesterday():
    zone = archive(days=40, wind=40.0)
    ours, naive = [], []
    for day in range(15, 35, 2):
        newest, _, now = live(zone, day)
        alone = correct(replace(newest, times=[], values=[], issued_at=None), [], now)
        ours.append(error(alone, zone, now))
        first = int(now.timestamp() // 3600) - zone.first
        steps = np.arange(40)
        naive.append(np.sqrt(np.mean((zone.actual[first - 24 + steps % 24] - zone.actual[first + steps]) ** 2)))
    assert np.mean(ours) < 0.9 * np.mean(naive)


def test_a_source_that_is_never_wrong_is_left_alone():
    zone = archive(days=30)
    exact = np.array([zone.actual[h - zone.first : h - zone.first + 96] for h in zone.issued[:20]])
    newest, earlier, now = live(replace(zone, issued=zone.issued[:20], forecasts=exact), 19)
    assert correct(newest, earlier, now) is newest


def test_without_earlier_issues_the_forecast_is_left_alone():
    newest, earlier, now = live(archive(days=30), 20)
    assert correct(newest, [], now) is newest
    assert correct(newest, [newest], now) is newest
    assert correct(newest, earlier[-1:], now) is not newest


def test_issues_are_remembered_once_an_hour_and_for_28_days():
    zone, kept = archive(days=40), []
    for number in range(35):
        newest = issue(zone, number)
        kept = remember(remember(kept, newest), newest)
    assert [kept[0].issued_at, kept[-1].issued_at] == [issue(zone, 6).issued_at, issue(zone, 34).issued_at]
    assert len(kept) == 29
    assert remember(kept, None) == remember(kept, replace(newest, issued_at=None)) == kept


@pytest.mark.parametrize("gone", ["all", "recent"])
def test_without_a_history_nothing_changes(gone):
    newest, earlier, now = live(archive(days=30), 20)
    keep = 0 if gone == "all" else -60
    cut = {"history_times": newest.history_times[:keep], "history_values": newest.history_values[:keep]}
    assert correct(replace(newest, **cut), earlier, now).values.tolist() == newest.values.tolist()


def test_short_forecast_is_continued_from_history():
    newest, earlier, now = live(archive(days=30), 20)
    short = replace(newest, times=newest.times[:24], values=newest.values[:24])
    better = correct(short, earlier, now)
    assert better.end >= now + timedelta(hours=95)
    assert better.times == sorted(better.times)


def test_half_hours_keep_their_shape():
    zone = archive(days=30, bias=80.0)
    newest, earlier, now = live(zone, 20)
    times = [time + timedelta(minutes=minutes) for time in newest.times for minutes in (0, 30)]
    values = np.repeat(newest.values, 2) + np.tile([5.0, -5.0], len(newest.times))
    fine = correct(replace(newest, times=times, values=values), earlier, now)
    coarse = correct(newest, earlier, now)
    assert fine.values[: len(values)][20:60:2] - fine.values[: len(values)][21:61:2] == pytest.approx(10.0)
    assert hourly(fine.seconds, fine.values, full=False)[1][10:90] == pytest.approx(coarse.values[10:90])


def test_gaps_other_kinds_and_issues_without_a_time_do_no_harm():
    zone = archive(days=30, bias=80.0)
    newest, earlier, now = live(zone, 20)
    keep = [place for place in range(len(newest.history_times)) if place % 7]
    gappy = replace(
        newest,
        history_times=[newest.history_times[place] for place in keep],
        history_values=newest.history_values[keep],
    )
    other = [replace(earlier[0], kind="marginal/direct"), replace(earlier[1], issued_at=None), Forecast([], [])]
    better = correct(gappy, [*other, *earlier[5:]], now)
    assert np.isfinite(better.values).all()
    assert error(better, zone, now) < error(newest, zone, now)


def test_issues_of_another_kind_teach_nothing():
    newest, earlier, now = live(archive(days=30, bias=80.0), 20)
    marginal = [replace(one, values=one.values * 3, kind="marginal/lifecycle") for one in earlier]
    assert correct(newest, marginal, now) is newest
    mixed = correct(newest, [*marginal, *earlier], now)
    assert mixed.values.tolist() == correct(newest, earlier, now).values.tolist()
    assert mixed.kind == newest.kind


def test_issues_from_the_future_teach_nothing():
    zone = archive(days=30, bias=80.0)
    newest, earlier, now = live(zone, 20)
    later = [issue(zone, number) for number in range(21, 27)]
    assert correct(newest, [*earlier, *later], now).values.tolist() == correct(newest, earlier, now).values.tolist()


def test_the_share_of_history_follows_the_hours_not_the_level():
    """History that is right about the hours and wrong about the level is taken; the other way round it is not."""
    rng = np.random.default_rng(3)
    hours = rng.normal(0, 0.1, (200, LONGEST_LEAD))
    level = np.repeat(rng.normal(0, 0.5, (200, 1)), LONGEST_LEAD, axis=1)
    fade, error = np.ones(200), np.full(LONGEST_LEAD, 0.1)
    share, left = history_share(hours, hours + level, fade, error)
    assert share == pytest.approx(np.full(LONGEST_LEAD, 200 / (200 + 5 * 8)), rel=0.01)
    assert (left > error).all(), "what the level costs is said"
    noise = rng.normal(0, 0.1, hours.shape)
    assert history_share(hours + level, noise + level, fade, error)[0].max() < 0.05
    assert history_share(hours, -hours, fade, error)[0].max() == 0
    halves = history_share(hours, 2 * hours, fade, error)
    assert halves[0][0] == pytest.approx(0.5 * share[0], rel=0.01)
    assert (halves[1] < error).all()


def test_learning_uses_what_it_is_given_and_needs_seven_issues():
    zone = archive(days=30, bias=80.0)
    few = Past(zone.first, zone.actual[: 24 * 6], zone.issued[:6], zone.forecasts[:6])
    many = Past(zone.first, zone.actual[: 24 * 25], zone.issued[:25], zone.forecasts[:25])
    nothing = Past(zone.first, zone.actual[:0], zone.issued[:0], zone.forecasts[:0])
    assert np.array_equal(learn(few, 1).parts, learn(nothing, 1).parts)
    assert not np.array_equal(learn(many, 1).parts, learn(nothing, 1).parts)
    assert learn(many, 1).parts.shape == (LONGEST_LEAD, 4)


def test_known_hours_are_taken_as_they_are():
    zone = archive(days=20)
    hour = zone.first + 15 * 24 + 9
    past = Past(zone.first, zone.actual[: hour + 1 - zone.first], zone.issued[:16], zone.forecasts[:16])
    value, spread = learn(past, 0).predict(clues(past, np.array([hour]), 24, 0))
    assert value[0, 0] == zone.actual[hour - zone.first]
    assert spread[0, 0] == 0
    assert (spread[0, 1:] > 0).all()


def test_corrected_forecast_makes_a_better_plan():
    """Mornings look 150 g cleaner than they are: only the corrected forecast waits for the sun instead."""
    zone = archive(days=30, bias=150.0, wind=5.0, solar=150.0)
    newest, earlier, now = live(zone, 20, hour=0)
    job = Job(5, deadline=now + timedelta(hours=24), safety=0.0)

    def emitted(forecast):
        first = int(now.timestamp() // 3600) - zone.first
        return sum(
            float(zone.actual[first + int((slot.start - now).total_seconds() // 3600)])
            for slot in plan(job, forecast, now).slots
            if slot.action == "run"
        )

    assert emitted(correct(newest, earlier, now)) < 0.9 * emitted(newest)


def test_naive_now_is_refused():
    newest, earlier, now = live(archive(days=30), 20)
    with pytest.raises(ValueError, match="`now` should have a time zone"):
        correct(newest, earlier, now.replace(tzinfo=None))
