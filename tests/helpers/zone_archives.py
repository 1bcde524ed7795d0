"""Synthetic zone archives: a grid with solar and wind power, and biased forecasts whose error grows with the lead."""

import csv
from datetime import datetime, timedelta, timezone

import numpy as np

from lightning_green.backtest.zone_archive import ZoneArchive
from lightning_green.planning import Forecast

FIRST = int(datetime(2023, 3, 1, tzinfo=timezone.utc).timestamp()) // 3600


def make_archive(days=40, seed=0, forecasts=True, bias=40.0, solar=120.0, wind=60.0, base=300.0):
    rng = np.random.default_rng(seed)
    hours = FIRST + np.arange(days * 24)
    slow = np.zeros(len(hours))
    for index in range(1, len(hours)):
        slow[index] = 0.97 * slow[index - 1] + rng.normal(0, wind * 0.24)
    shape = -solar * np.clip(np.sin((hours % 24 - 6) / 12 * np.pi), 0, None)
    actual = np.clip(base + shape + slow, 5, None)
    issued = np.arange(FIRST, FIRST + (days - 3) * 24, 24)
    table = []
    for hour in issued:
        lead = np.arange(96)
        place = np.minimum(hour - FIRST + lead, len(actual) - 1)
        noise = np.cumsum(rng.normal(0, 1.5, 96))
        morning = -bias * ((hour + lead) % 24 < 6)
        table.append(np.clip(actual[place] + noise + morning, 0, None))
    if not forecasts:
        issued, table = issued[:0], np.empty((0, 0))
    return ZoneArchive("test", FIRST, actual, np.array(issued, dtype=np.int64), np.array(table))


def write_archive(zone, folder, name="ZZ"):
    """Write an archive as the two CSV files of the command line."""
    stamp = lambda hour: (datetime(1970, 1, 1) + timedelta(hours=int(hour))).isoformat() + "Z"  # noqa: E731
    actual, forecast = folder / f"{name}_2023.csv", folder / f"{name}_2023_96h.csv"
    with actual.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["datetime", "carbon_intensity", "carbon_intensity_direct"])
        for index, value in enumerate(zone.actual):
            rows.writerow([stamp(zone.first + index), f"{value:.2f}", f"{value / 2:.2f}"])
    with forecast.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["issued_at", "kind", *(f"h{lead:02d}" for lead in range(96))])
        for hour, values in zip(zone.issued, zone.forecasts, strict=True):
            rows.writerow([stamp(hour), "lifecycle", *(f"{value:.2f}" for value in values)])
            rows.writerow([stamp(hour), "direct", *(f"{value / 2:.2f}" for value in values)])
    return actual, forecast


def to_time(hour):
    return datetime.fromtimestamp(hour * 3600, timezone.utc)


def issuance(zone, number, **kwargs):
    """Return a forecast of the archive."""
    begin = int(zone.issued[number])
    times = [to_time(begin + lead) for lead in range(zone.forecasts.shape[1])]
    return Forecast(times, zone.forecasts[number], issued_at=to_time(begin), **kwargs)


def available(zone, day, hour=9, days=8):
    """Return the newest forecast of a day with its history, the earlier forecasts, and the time."""
    now = zone.first + day * 24 + hour
    known = range(now - 24 * days, now)
    history = [float(zone.actual[known_hour - zone.first]) for known_hour in known]
    newest = issuance(zone, day, history_times=[to_time(known_hour) for known_hour in known], history_values=history)
    return newest, [issuance(zone, number) for number in range(day)], to_time(now)


def rms_error(forecast, zone, now, hours=40):
    """Return the root mean square error of a forecast over the coming hours."""
    predicted = dict(zip(forecast.times, forecast.values, strict=True))
    errors = []
    for lead in range(hours):
        time = now + timedelta(hours=lead)
        errors.append(predicted[time] - zone.actual[int(time.timestamp() // 3600) - zone.first])
    return float(np.sqrt(np.mean(np.square(errors))))
