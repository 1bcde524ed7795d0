"""Synthetic archives for the tests: a grid with sun and wind, and forecasts that are biased and fade."""

import csv
from datetime import datetime, timedelta, timezone

import numpy as np

from lightning_green.backtest.zone_archive import Archive

FIRST = int(datetime(2023, 3, 1, tzinfo=timezone.utc).timestamp()) // 3600


def archive(days=40, seed=0, issues=True, bias=40.0, solar=120.0, wind=60.0, base=300.0):
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
    if not issues:
        issued, table = issued[:0], np.empty((0, 0))
    return Archive("test", FIRST, actual, np.array(issued, dtype=np.int64), np.array(table))


def write(zone, folder, name="ZZ"):
    """Write an archive as the two CSV files that the command line reads."""
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
