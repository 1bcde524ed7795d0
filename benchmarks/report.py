"""How large a page of a report is, how long it takes to write, and how long a browser needs to open it.

    python benchmarks/report.py --lines 100000 --json

One training on one node writes an event every 15 s, a validation every hour and a decision every hour. Figures:

    write_s      CPU seconds of `lightning-green report RUN_DIR`, with the start of Python
    page_mb      size of the page
    open_s       seconds from the navigation to the drawn charts in headless Chromium; null if it is not installed
    lines, n     lines of the ledger; number of pages written and opened
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lightning_green.energy.meter import Energy
from lightning_green.ledger.events import Decision, Event, Sample, Started, Validated
from lightning_green.ledger.intensity_series import series_record
from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.measurement import Intensity, Measurement
from lightning_green.run.session import SAMPLE_SECONDS
from lightning_green.utilities.clock import SimulatedClock

PER_HOUR = round(3600 / SAMPLE_SECONDS)


def write(folder: Path, lines: int) -> None:
    """Write the ledger of a training."""
    clock = SimulatedClock(datetime(2024, 5, 1, tzinfo=timezone.utc))
    ledger = Ledger(folder, clock, 1)
    for number in range(lines):
        clock.sleep(SAMPLE_SECONDS)
        joules = {
            "cpu": Energy(1500.0 * number, "measured"),
            "gpu": Energy(4500.0 * number, "measured"),
            "ram": Energy(75.0 * number, "modelled"),
        }
        hour = number // PER_HOUR % 24
        value = 300.0 + 10.0 * abs(12 - hour)
        intensity = Intensity(value, "average/lifecycle", "electricitymaps", "DE", value, "2024-05-01T00:00:00Z")
        event: Event = Sample() if number else Started(startup_s=3.0, meter="auto")
        if number % PER_HOUR == 1:
            forecast = series_record(clock.now(), [3600.0 * n for n in range(48)], [300.0 + n for n in range(48)])
            until = clock.now() + timedelta(hours=1)
            event = Decision(reason="Run now.", action="run", until=until, forecast=forecast)
        elif number % PER_HOUR == 2:
            event = Validated(metrics={"val_acc": 1.0 - 1.0 / (2 + number), "val_loss": 1.0 / (2 + number)})
        measured = Measurement(joules, intensity, 1.2, data_wait_s=0.1 * number)
        ledger.append(replace(event, phase="training", state="running", measured=measured, global_step=number, fit=0))
    ledger.close()


def children_cpu() -> float:
    """Return the CPU seconds of ended child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def seconds_to_write(folder: Path, page: Path) -> float:
    """Return the CPU seconds of the command."""
    before = children_cpu()
    command = [sys.executable, "-m", "lightning_green", "report", str(folder), "--output", str(page)]
    subprocess.run(command, check=True, capture_output=True)
    return children_cpu() - before


def seconds_to_open(page: Path, count: int) -> list[float] | None:
    """Return the seconds until the charts of the page are drawn."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        print("No open_s: Debian's packages chromium and chromium-driver are not installed.", file=sys.stderr)
        return None
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    times = []
    try:
        for _ in range(count):
            browser.get(page.as_uri())  # returns at the load event, after the script of the page
            times.append(browser.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd"))
    finally:
        browser.quit()
    return [milliseconds / 1e3 for milliseconds in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last thing")
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--n", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, page = Path(name) / "run", Path(name) / "report.html"
        folder.mkdir()
        write(folder, arguments.lines)
        written = [seconds_to_write(folder, page) for _ in range(arguments.n)]
        opened = seconds_to_open(page, arguments.n)
        result = {
            "write_s": round(statistics.median(written), 2),
            "write_s_range": [round(min(written), 2), round(max(written), 2)],
            "page_mb": round(page.stat().st_size / 1e6, 2),
            "open_s": None if opened is None else round(statistics.median(opened), 2),
            "lines": arguments.lines,
            "n": arguments.n,
        }
    if arguments.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name:<14} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
