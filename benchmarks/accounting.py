"""Energy, emissions and savings against a calculator that shares no code with the package.

    python benchmarks/accounting.py --histories 200 --seed 1 --json

Each history is a run of random starts, on a simulated clock: with the zone, the source, the kind and the PUE of each
start, work at full or throttled power, pauses in process, planned exits, kills, sleep of the machine, and one or two
fits. The package records it with its own sessions and ledgers on disk. The calculator knows the power of each minute,
and the hourly intensities of each zone, as arrays of NumPy.

Figures:

    histories          histories
    fits               fits in them
    max_error_pct      largest error of energy, emissions, baseline and the share of it that is known
    false_savings      fits that never waited and have a saving of more than 0.01 %
    missing_baselines  fits with a known intensity and no baseline
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lightning_green.energy.constant import ConstantPowerMeter  # noqa: E402
from lightning_green.grid.providers.trace import TraceSignal  # noqa: E402
from lightning_green.ledger.events import Finished, Paused  # noqa: E402
from lightning_green.run.coordinator import open_run  # noqa: E402
from lightning_green.run.figures import kind_suffixes  # noqa: E402
from lightning_green.run.options import RunOptions  # noqa: E402
from lightning_green.run.run import FitIdentity, Run  # noqa: E402
from lightning_green.run.session import Session  # noqa: E402
from lightning_green.utilities.clock import SimulatedClock  # noqa: E402

START = datetime(2024, 5, 2, tzinfo=timezone.utc)
DAYS = 30
MINUTES = DAYS * 24 * 60
RESTART_MINUTES = 5
HOLD_POWER = 0.25
LEVEL = (0.75, 0.9)  # power and speed of the throttle level
FALSE = 0.01  # percent


class Machine(SimulatedClock):
    """A simulated clock whose monotonic time stands still while the machine sleeps."""

    slept = 0.0

    def monotonic(self) -> float:
        """Return the seconds in which the machine was awake."""
        return super().monotonic() - self.slept

    def fall_asleep(self, seconds: float) -> None:
        """Let time pass in sleep."""
        self.slept += seconds
        self.sleep(seconds)


@dataclass
class Place:
    """A zone as one source sees it: a file, and its hourly values."""

    path: Path
    kind: str
    hourly: np.ndarray

    @property
    def minutes(self) -> np.ndarray:
        """The intensity of each minute in gCO2e/kWh."""
        return np.repeat(self.hourly, 60)


@dataclass
class Minutes:
    """What a fit did in each minute, as the calculator knows it."""

    watts: np.ndarray = field(default_factory=lambda: np.zeros(MINUTES))
    speed: np.ndarray = field(default_factory=lambda: np.zeros(MINUTES))
    power: np.ndarray = field(default_factory=lambda: np.ones(MINUTES))
    works: np.ndarray = field(default_factory=lambda: np.zeros(MINUTES, bool))
    delay: np.ndarray = field(default_factory=lambda: np.zeros(MINUTES))
    pue: np.ndarray = field(default_factory=lambda: np.ones(MINUTES))
    place: np.ndarray = field(default_factory=lambda: np.full(MINUTES, -1))
    waited: float = 0.0
    delayed: float = 0.0


def write_places(folder: Path, rng: np.random.Generator) -> list[Place]:
    """Write the intensities of three zones, one of them from two sources and in two kinds."""
    places = []
    hours = np.arange(DAYS * 24)
    for name, kind in (("DE", 0), ("DE-other", 0), ("FR", 0), ("PL", 0), ("DE-direct", 1)):
        level, swing = rng.uniform(40, 700), rng.uniform(0.1, 0.6)
        values = level * (
            1 + swing * np.sin(2 * np.pi * hours / 24 + rng.uniform(0, 6)) + rng.normal(0, 0.05, len(hours))
        )
        values = np.round(np.maximum(values, 5.0), 3)
        path = folder / f"{name}.csv"
        rows = [f"{(START + timedelta(hours=int(hour))).isoformat()},{values[hour]}" for hour in hours]
        path.write_text("\n".join(["datetime,carbon_intensity", *rows]))
        places.append(Place(path, ("average/lifecycle", "average/direct")[kind], values))
    return places


class History:
    """A random run, recorded by the package and known to the calculator.

    Args:
        folder: Run directory.
        places: Zones and sources.
        draw: Random numbers.

    """

    def __init__(self, folder: Path, places: list[Place], draw: random.Random) -> None:
        self.folder, self.places, self.draw = folder, places, draw
        self.clock = Machine(START, seconds_per_batch=60.0, seconds_per_restart=60.0 * RESTART_MINUTES)
        self.summaries: list[dict[str, Any]] = []
        self.fits: list[Minutes] = []
        self.last_places: list[int] = []
        self.kinds: list[list[str]] = []  # of each fit, in the order of its starts

    @property
    def minute(self) -> int:
        """The current minute."""
        return round((self.clock.time() - START.timestamp()) / 60)

    def play(self) -> None:
        """Play the run."""
        mixes = self.draw.random() < 0.6
        place, watts = self.draw.randrange(3 if mixes else 4), 0.0
        starts = self.draw.randint(1, 5)
        for number in range(starts):
            if number and mixes and self.draw.random() < 0.5:
                place = self.draw.randrange(len(self.places))
            watts = self.draw.uniform(100, 900)
            self.start(place, watts, 1.0 if self.draw.random() < 0.5 else round(self.draw.uniform(1, 2), 2))
            self.work(watts, place)
            if number == starts - 1:
                self.finish()
            elif self.draw.random() < 0.6:
                self.exit()
            else:
                self.kill()
        if self.draw.random() < 0.3:  # a second fit in the same process
            self.open_fit(place, watts)
            self.work(watts, place)
            self.finish()
        self.run.end(cleanly=True)

    def start(self, place: int, watts: float, pue: float) -> None:
        """Start a process."""
        self.pue = pue
        grid = TraceSignal(str(self.places[place].path), kind=self.places[place].kind)
        self.options = RunOptions(meter=ConstantPowerMeter(watts), grid=grid, pue=pue, clock=self.clock)
        run, _ = open_run(self.folder, self.clock)
        self.run: Run = run
        self.open_fit(place, watts)

    def open_fit(self, place: int, watts: float) -> None:
        """Start the next fit, or continue one that has not finished."""
        claimed = self.run.claim_fit(FitIdentity())
        self.session = Session(self.run, self.options, claimed.number, self.run.continuing and claimed.continuing)
        continuing = claimed.number < len(self.fits)
        if not continuing:
            self.fits.append(Minutes())
            self.last_places.append(place)
            self.kinds.append([])
        self.kinds[claimed.number].append(self.places[place].kind)
        self.fit, self.last_places[claimed.number] = self.fits[claimed.number], place
        before = self.minute
        self.session.start()
        self.session.announce()
        for minute in range(before, self.minute):  # the restart: a part of waiting only after a planned exit
            self.note(minute, watts, place, works=not self.came_back)
        if continuing and self.came_back:
            self.fit.delayed += self.minute - before
        self.came_back = False

    came_back = False

    def note(self, minute: int, watts: float, place: int, works: bool, speed: float = 1.0, power: float = 1.0) -> None:
        """Note what happened in a minute."""
        fit = self.fit
        fit.watts[minute], fit.place[minute], fit.pue[minute] = watts * power, place, self.pue
        fit.works[minute], fit.speed[minute], fit.power[minute], fit.delay[minute] = works, speed, power, fit.delayed

    def work(self, watts: float, place: int) -> None:
        """Train, validate, throttle, hold and sleep for a while."""
        session = self.session
        for _ in range(self.draw.randint(1, 5)):
            kind = self.draw.choice(["train", "train", "validate", "throttle", "hold", "sleep"])
            minutes = self.draw.randint(1, 120)
            if kind == "throttle":
                session.recorder.set_level(*LEVEL)
                session.recorder.enter(state="throttled")
            elif kind == "hold":
                session.meter.set_load(HOLD_POWER)
                session.recorder.enter(state="held", phase="held")
            elif kind == "validate":
                session.recorder.enter(phase="validation")
            elif kind == "sleep":
                self.clock.fall_asleep(minutes * 600.0)
                session.sample()
                continue
            for _ in range(minutes):
                now = self.minute
                if kind == "hold":
                    self.note(now, watts * HOLD_POWER, place, works=False)
                elif kind == "throttle":
                    self.note(now, watts, place, True, LEVEL[1], LEVEL[0])
                else:
                    self.note(now, watts, place, works=True)
                self.clock.advance("batch")
                session.sample()
                if kind == "hold":
                    self.fit.delayed += 1
                    self.fit.waited += 1
                elif kind == "throttle":
                    self.fit.delayed += 1 - LEVEL[1]
            if kind == "throttle":
                session.recorder.set_level(1.0, 1.0)
            session.meter.set_load(1.0)
            session.recorder.enter(state="running", phase="training")

    def exit(self) -> None:
        """Exit as planned, and wait."""
        self.session.record_exit(Paused(until=START))
        self.session.summary()
        self.session.end()
        self.run.end(cleanly=True)
        minutes = self.draw.randint(10, 2000)
        self.clock.sleep(60.0 * minutes)
        self.fit.delayed += minutes
        self.fit.waited += minutes
        self.came_back = True

    def kill(self) -> None:
        """End without a record, and start again after a while."""
        self.run.end(cleanly=False)
        self.clock.sleep(60.0 * self.draw.randint(1, 1000))

    def finish(self) -> None:
        """Finish the fit."""
        self.session.record(Finished())
        self.session.end()
        self.summaries.append(self.session.summary())


def calculate(fit: Minutes, places: list[Place], last: int) -> dict[str, dict[str, float]]:
    """Return energy, emissions, baseline and its known share by kind, from the arrays alone."""
    kwh = fit.watts / 60_000
    by_place = np.array([place.minutes for place in places])
    found: dict[str, dict[str, float]] = {}
    measured = fit.place >= 0
    for kind in dict.fromkeys(place.kind for place in places):
        own = np.array([places[place].kind == kind for place in fit.place]) & measured
        if not own.any():
            continue
        intensity = by_place[fit.place, np.arange(MINUTES)]
        grams = float((kwh * fit.pue * intensity)[own].sum())
        run_now = known_kwh = work_kwh = 0.0
        for minute in np.flatnonzero(own & fit.works):
            energy = kwh[minute] * fit.pue[minute]
            at, length = minute - fit.delay[minute], fit.speed[minute]
            place = fit.place[minute]
            mean, share = mean_of(by_place[place], at, at + length, None if place == last else fit.place == place)
            if fit.delay[minute] == 0 and length == 1.0:
                mean, share = intensity[minute], 1.0
            run_now += energy * length / fit.power[minute] * mean * share
            known_kwh += energy * share
            work_kwh += energy
        found[kind] = {"gco2e": grams, "run_now": run_now, "share": known_kwh / work_kwh if work_kwh else 0.0}
    return found


def mean_of(values: np.ndarray, start: float, end: float, known: np.ndarray | None) -> tuple[float, float]:
    """Return the mean over an interval in minutes, and the known share of it."""
    weighted = weights = 0.0
    for minute in range(int(np.floor(start)), int(np.ceil(end))):
        weight = min(end, minute + 1) - max(start, minute)
        if weight > 1e-12 and minute >= 0 and (known is None or known[minute]):
            weighted, weights = weighted + weight * values[minute], weights + weight
    return (weighted / weights, weights / (end - start)) if weights else (0.0, 0.0)


def error(found: float | None, expected: float) -> float:
    """Return the error in percent."""
    if found is None:
        return 0.0 if expected == 0.0 else 100.0
    return 100.0 * abs(found - expected) / abs(expected) if abs(expected) > 1e-12 else 100.0 * abs(found)


def main() -> None:
    """Play the histories, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ["LIGHTNING_GREEN_RESUME"] = "1"
    figures: dict[str, Any] = {"histories": 0, "fits": 0, "max_error_pct": 0.0, "false_savings": 0}
    figures |= {"missing_baselines": 0, "worst": ""}
    for number in range(arguments.histories):
        draw = random.Random(f"{arguments.seed} {number}")
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            places = write_places(Path(folder), np.random.default_rng(draw.randrange(2**32)))
            history = History(Path(folder) / "run", places, draw)
            history.play()
        figures["histories"] += 1
        for index, summary in enumerate(history.summaries):
            compare(history, index, summary, f"history {number}, fit {index}", figures)
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name:18} {value}" for name, value in figures.items()))
    sys.exit(figures["max_error_pct"] > 0.1 or figures["false_savings"] > 0 or figures["missing_baselines"] > 0)


def compare(history: History, index: int, summary: dict[str, Any], name: str, figures: dict[str, Any]) -> None:
    """Compare the summary of a fit with the calculator."""
    fit = history.fits[index]
    figures["fits"] += 1
    expected = calculate(fit, history.places, history.last_places[index])
    errors = {"energy": error(summary["energy/kwh"], float(fit.watts.sum()) / 60_000)}
    errors["waited"] = error(summary["carbon/hours_waited"], fit.waited / 60)
    for number, (kind, suffix) in enumerate(kind_suffixes(history.kinds[index]).items()):
        if kind not in expected:
            continue
        values, other = expected[kind], "" if number == 0 else suffix
        run_now = summary[f"carbon/counterfactual_gco2e{suffix}"]
        errors[f"emissions {kind}"] = error(summary[f"carbon/gco2e{suffix}"], values["gco2e"])
        if values["share"] > 0:
            figures["missing_baselines"] += run_now is None
            errors[f"baseline {kind}"] = error(run_now, values["run_now"])
            errors[f"share {kind}"] = error(summary[f"carbon/known_share{other}"], values["share"])
            saving = summary[f"carbon/saving_pct{other}"]
            never_delayed = fit.delayed == 0
            figures["false_savings"] += never_delayed and saving is not None and abs(saving) > FALSE
    worst = max(errors, key=lambda key: errors[key])
    if errors[worst] > figures["max_error_pct"]:
        figures["max_error_pct"], figures["worst"] = round(errors[worst], 6), f"{name}: {worst}"


if __name__ == "__main__":
    main()
