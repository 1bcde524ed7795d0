"""Plans from live forecasts are corrected with the archive."""

from dataclasses import replace
from datetime import timedelta

from lightning_green.planning import FORECAST_ARCHIVE_FILE, Forecast, ForecastArchive, Job, live_plan, plan
from lightning_green.planning.forecasting import correct, correction
from tests.helpers.grids import START, MorningsLookClean

KIND = "average/lifecycle"


def job(now, work=3.0, window=20.0, **kwargs):
    return Job(work, deadline=now + timedelta(hours=window), **kwargs)


def test_live_plan_uses_the_corrected_forecast():
    grid, archive, by_hand = MorningsLookClean(), ForecastArchive(), ForecastArchive()
    for hour in range(0, 60, 3):
        now = START + timedelta(hours=hour)
        answer = live_plan(grid, job(now), archive, now)
        newest = grid.forecast(now, timedelta(hours=20))
        better = correct(by_hand.extend_history("ZZ", newest), by_hand.issuances("ZZ", KIND), now)
        assert answer == plan(job(now), better, now)
        by_hand.add("ZZ", newest)
    assert answer != plan(job(now), newest, now)
    assert len(archive.issuances("ZZ", KIND)) == 20


def test_correction_is_fitted_once_a_day(monkeypatch):
    fits = []
    original = correction.fit_correction
    monkeypatch.setattr(correction, "fit_correction", lambda *args: fits.append(args) or original(*args))
    grid, archive = MorningsLookClean(), ForecastArchive()
    for now in (START + timedelta(hours=hour) for hour in range(48)):
        live_plan(grid, job(now), archive, now)
    assert len(fits) == 2


def test_live_plan_learns_across_restarts(tmp_path):
    """Every plan is made by a new process. The first one waits for the morning, after four days for noon."""
    grid, waits = MorningsLookClean(), {}
    for hour in range(0, 24 * 5, 3):
        now = START + timedelta(hours=hour)
        answer = live_plan(grid, job(now), ForecastArchive(tmp_path / FORECAST_ARCHIVE_FILE), now)
        if now.hour == 0:
            waits[now.day] = next(slot.start.hour for slot in answer.slots if slot.action == "run")
    assert waits[START.day] == 6
    assert waits[START.day + 4] == 12
    without_archive = live_plan(grid, job(now := START + timedelta(days=4)), ForecastArchive(), now)
    assert next(slot.start.hour for slot in without_archive.slots if slot.action == "run") == 6


def test_missing_forecast_runs_now():
    class Silent(MorningsLookClean):
        def forecast(self, now, horizon):
            return None

    answer = live_plan(Silent(), job(START), ForecastArchive(), START)
    assert answer.slots[0].action == "run"
    assert "nothing is known" in answer.reason


def test_issue_time_in_the_future_is_treated_as_now():
    class Ahead(MorningsLookClean):
        def forecast(self, now, horizon):
            return replace(super().forecast(now, horizon), issued_at=now + timedelta(hours=2))

    archive = ForecastArchive()
    assert live_plan(Ahead(), job(START), archive, START).slots[0].action == "exit"
    assert archive.issuances("ZZ", KIND)[0].issued_at == START


def test_empty_forecast_is_predicted_from_the_history():
    class HistoryOnly(MorningsLookClean):
        def forecast(self, now, horizon):
            found = super().forecast(now, horizon)
            return Forecast([], [], history_times=found.history_times, history_values=found.history_values)

    answer = live_plan(HistoryOnly(), job(START), ForecastArchive(), START)
    assert [slot.start.hour for slot in answer.slots if slot.action == "run"] == [12, 13, 14]


def test_horizon_is_a_year_at_most():
    class Recording(MorningsLookClean):
        def forecast(self, now, horizon):
            horizons.append(horizon)
            return super().forecast(now, horizon)

    horizons = []
    far, farther = (
        live_plan(Recording(), job(START, window=24.0 * days), ForecastArchive(), START) for days in (365, 3650)
    )
    assert horizons == [timedelta(days=365)] * 2
    assert farther.slots == far.slots


def test_delay_price_replaces_the_deadline():
    """A pause ends when another hour costs more than it saves."""

    class Recording(MorningsLookClean):
        def forecast(self, now, horizon):
            horizons.append(horizon)
            return super().forecast(now, horizon)

    horizons = []
    patient = live_plan(Recording(), Job(3.0, delay_price=20.0), ForecastArchive(), START)
    assert patient.slots[0].action == "exit"
    assert live_plan(Recording(), Job(3.0, delay_price=2000.0), ForecastArchive(), START).slots[0].action == "run"
    assert min(horizons) >= timedelta(hours=96)
