"""The value in use for each provider and fault.

``fresh`` is a run that starts during the fault with an empty cache; ``later`` is a run that had valid answers three
hours ago. The value in use:

    value     the true value of this hour
    forecast  the last forecast
    old       the last value, three hours old
    nothing   None: the run does not wait
    unknown   None for this hour, with a forecast of later hours: the run may wait for one of them
"""

from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.planning.job import Job
from lightning_green.planning.planner import plan
from tests.helpers.fake_grid import PASSWORD, STEPS, TOKEN, solar_day
from tests.helpers.grid_faults import NO_ANSWER, ODD_ANSWER
from tests.helpers.live_signals import NOW, PROVIDERS

# fault -> (fresh, later)
WITHOUT = dict.fromkeys(NO_ANSWER, ("nothing", "forecast"))
WITH = dict.fromkeys([None, *ODD_ANSWER], ("value", "value"))
TABLE = {(provider, fault): values for provider in PROVIDERS for fault, values in (WITHOUT | WITH).items()}
for fault in WITHOUT:
    TABLE["prometheus", fault] = ("nothing", "old")  # it has no forecast
for provider in ("charts", "prometheus"):
    del TABLE[provider, "wrong_zone"]  # their answers name no zone
TABLE["charts", "unequal"] = ("nothing", "forecast")
TABLE["em", "sandbox"] = ("nothing", "forecast")
TABLE["em", "estimated"] = ("value", "value")
TABLE["em", "no_forecast_in_plan"] = ("value", "value")
TABLE["watttime", "percentile"] = ("nothing", "forecast")
TABLE["watttime", "expired_token"] = ("value", "value")
# Without the newest value: the one before it, or the earlier forecast for this time.
for provider in PROVIDERS:
    TABLE[provider, "null_newest"] = ("old", "forecast")
TABLE["json", "null_newest"] = ("unknown", "forecast")  # one address, one value, and its forecast begins later
TABLE["prometheus", "null_newest"] = ("old", "old")


def outcome(signal, at):
    reading = signal.intensity(at)
    if reading is None:
        return "nothing"
    if reading.quality == "forecast":
        assert reading.value == pytest.approx(solar_day(reading.measured_at))
        return "forecast"
    step = timedelta(minutes=STEPS[NAMES[signal.source]])
    assert reading.value == pytest.approx(solar_day(reading.measured_at))
    if reading.measured_at <= at < reading.measured_at + step:
        return "value"
    return "old" if at - reading.measured_at < timedelta(hours=12) else "earlier day"


NAMES = {
    "electricity-maps": "em",
    "watttime": "watttime",
    "neso": "neso",
    "energy-charts": "charts",
    "energi-data-service": "eds",
    "carbon-aware-sdk": "sdk",
    "http": "json",
    "prometheus": "prometheus",
}


def plans(signal, now):
    job = Job(work_hours=6.0, deadline=now + timedelta(hours=24))
    return plan(job, signal.forecast(now, timedelta(hours=24)), now)


@pytest.mark.sampled
@pytest.mark.parametrize(("provider", "fault"), list(TABLE), ids=lambda value: str(value))
def test_value_in_use_during_a_fault(grid, build, provider, fault):
    fresh, later = TABLE[provider, fault]

    grid.faults = {None: fault}
    signal = build(provider)
    signal.refresh(NOW)
    assert outcome(signal, NOW) == ("nothing" if fresh == "unknown" else fresh)
    made = plans(signal, NOW)  # there is always a plan; without values, it is to run
    if fresh == "nothing":
        assert {slot.action for slot in made.slots} == {"run"}
        assert signal.problem
        assert len(signal.pop_messages()) >= 1
        asked = len(grid.requests)
        signal.refresh(NOW + timedelta(seconds=1))
        assert len(grid.requests) == asked, "a source that failed was asked again immediately"
        assert signal.pop_messages() == [], "the same failure was reported twice"

    grid.faults, grid.requests = {}, []
    signal = build(provider)
    signal.fetcher.cache.folder = signal.fetcher.cache.folder / "later"
    signal.refresh(NOW)
    assert signal.problem is None
    signal.pop_messages()
    grid.now = then = NOW + timedelta(hours=3)
    grid.faults, grid.valid_token = {None: fault}, ""
    signal.refresh(then)
    assert outcome(signal, then) == later
    text = " ".join(signal.pop_messages())
    assert TOKEN not in text + repr(signal.__dict__)
    assert PASSWORD not in text + repr(signal.__dict__)
    plans(signal, then)

    grid.faults = {}
    grid.now = then = NOW + timedelta(hours=6)
    signal.refresh(then, force=True)
    assert outcome(signal, then) == "value"
    assert signal.problem is None


@pytest.mark.parametrize("provider", PROVIDERS)
def test_cache_contains_no_secret(grid, build, provider, tmp_path):
    for fault in (None, "401_html"):
        grid.faults = {None: fault}
        build(provider).refresh(NOW, force=True)
    content = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert content
    for secret in (TOKEN, PASSWORD, "Bearer", "token-1"):
        assert secret.encode() not in content


CHANGES = {
    "to summer time": datetime(2026, 3, 29, 1, 10, tzinfo=timezone.utc),
    "to winter time": datetime(2026, 10, 25, 1, 10, tzinfo=timezone.utc),
    "of the year": datetime(2025, 12, 31, 23, 50, tzinfo=timezone.utc),
    "of a leap day": datetime(2028, 2, 29, 0, 10, tzinfo=timezone.utc),
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("change", CHANGES)
def test_times_are_correct_when_the_calendar_changes(grid, build, provider, change):
    grid.now = now = CHANGES[change]
    grid.faults = {None: "local_times"}
    signal = build(provider)
    assert signal.refresh(now) == []
    for hours in range(-20, 1):
        at = now + timedelta(hours=hours)
        if provider != "json" or hours == 0:
            assert signal.intensity(at).value == pytest.approx(solar_day(signal.intensity(at).measured_at))
            assert outcome(signal, at) == "value"
    forecast = signal.forecast(now, timedelta(hours=24))
    for at, value in zip(forecast.times, forecast.values, strict=True):
        assert value == pytest.approx(solar_day(at))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_clock_difference_of_two_hours_is_reported(grid, build, provider):
    grid.faults = {None: "clock_skew"}
    signal = build(provider)
    signal.refresh(NOW)
    messages = [message for message in signal.pop_messages() if "clock is 2 h behind" in message]
    assert len(messages) == 1
    reading = signal.intensity(NOW)
    assert reading is None or reading.measured_at <= NOW + timedelta(minutes=5)
