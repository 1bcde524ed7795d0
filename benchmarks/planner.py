"""Measure the speed of the planner, check that its plans are optimal, and backtest it on recorded grids.

    python benchmarks/planner.py --json
    python benchmarks/planner.py --table --data DIR

Figures of ``--json``:

    plan_7d_5min_5levels_ms   median CPU time of a plan: 84 h of work in 7 days, slots of 5 minutes, five levels
    plan_96h_ms               median CPU time of a plan: 48 h of work in 96 hours, one level
    plan_60d_ms               median CPU time of a plan: 84 h of work in 60 days, hourly values, one level
    plan_60d_5levels_ms       the same with five levels
    plan_60d_5min_5levels_ms  the same with 3 h of work, values of 5 minutes and five levels, which takes longest
    growth                    ratio of the time of a plan to that of the previous one, with twice the slots or levels
    optimal_of_1000           random small jobs for which SciPy's mixed-integer solver finds no better plan
    n                         plans per median

With ``--json --backtest --data DIR`` (or LIGHTNING_GREEN_DATA) also ``backtest``: mean saving, share of the optimum and
the worst zone for four jobs of 24 h in 48 h on every zone of DIR/carbon that has forecasts (about ten minutes).
``--table`` prints these results as Markdown, the tables of docs/planner_method.md. ``--choices`` varies constants of
the correction and the margin on the same zones, with a run every tenth day. ``--starts`` varies the start hour, with a
run every fourth day. ``--cross-validate`` chooses the constants for each zone on the other zones (leave one zone out),
and prints the spread. ``--returns`` prints saving, exits and missed deadlines with a time to return of 0, 10 and 60
minutes. Everything runs on one core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from planner_milp import minimum_by_milp

from lightning_green.backtest import policies
from lightning_green.backtest.backtest import Backtest
from lightning_green.backtest.planner_policy import PlannerPolicy
from lightning_green.backtest.results import as_markdown, mean_of, zone_table
from lightning_green.backtest.zone_archive import Scope, ZoneArchive, read_archive
from lightning_green.planning import Forecast, Job, Level, plan
from lightning_green.planning.forecasting import correction, features

START = datetime(2024, 5, 1, tzinfo=timezone.utc)
LEVELS = (Level(1, 1), Level(0.9, 0.96), Level(0.78, 0.9), Level(0.65, 0.8), Level(0.5, 0.65))
OTHERS = ("deferred_start", "lowest_slots", "threshold", "online", "planner_no_forecast", "static_throttle")
JOBS = {
    "exit and hold, resume 0.1 h": Backtest(),
    "hold only at 20 %": Backtest(pauses=frozenset({"hold"}), resume_hours=0.0),
    "throttle 0.78:0.90, exit and hold, resume 0.1 h": Backtest(throttle=(Level(0.78, 0.9),)),
    "direct intensities, exit and hold, resume 0.1 h": Backtest(),
}

CHOICES = {
    "default": (),
    "bias of 14 days": ((features, "BIAS_DAYS", 14),),
    "full bias": ((features, "BIAS_WEIGHT", 1.0),),
    "no bias": ((features, "BIAS_WEIGHT", 0.0),),
    "prior of 10 days": ((correction, "PRIOR_DAYS", 10.0),),
    "prior only": ((correction, "PRIOR_DAYS", 1e9),),
    "no history share": ((correction, "SHARE_PRIOR_DAYS", 1e9),),
}
"""Constants of the forecast correction that differ from the default."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--choices", action="store_true", help="print the savings with other constants")
    parser.add_argument(
        "--cross-validate", action="store_true", help="print the savings with one zone left out each time"
    )
    parser.add_argument("--starts", action="store_true", help="print the savings of runs that start at other hours")
    parser.add_argument("--returns", type=int, metavar="RUNS", help="print RUNS backtests for each time to return")
    parser.add_argument("--backtest", action="store_true", help="add the backtest to the JSON object")
    parser.add_argument("--table", action="store_true", help="print the backtest as Markdown")
    parser.add_argument("--only", default="", metavar="TEXT", help="limit --table to jobs with TEXT in their name")
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("LIGHTNING_GREEN_DATA"),
        help="directory with recorded grids in `carbon`",
    )
    parser.add_argument("--jobs", type=int, default=1000, help="random jobs that are compared with the solver")
    parser.add_argument("--n", type=int, default=30, help="plans per median")
    options = parser.parse_args()
    carbon = None if options.data is None else Path(options.data) / "carbon"
    shows = (
        (options.table, partial(print_tables, only=options.only)),
        (options.choices, print_choices),
        (options.cross_validate, print_cross_validation),
        (options.starts, print_starts),
        (options.returns, partial(print_returns, runs=options.returns)),
    )
    show = next((show for wanted, show in shows if wanted), None)
    if (show or options.backtest) and (carbon is None or not carbon.is_dir()):
        print("Recorded grids are required: set --data DIR or LIGHTNING_GREEN_DATA.", file=sys.stderr)
        return 2
    if show:
        show(carbon)
        return 0
    figures = {
        "plan_7d_5min_5levels_ms": round(plan_ms(7 * 24, 5, LEVELS, options.n), 2),
        "plan_96h_ms": round(plan_ms(96, 60, LEVELS[:1], 5 * options.n), 3),
        "plan_60d_ms": round(plan_ms(60 * 24, 60, LEVELS[:1], options.n, 84), 2),
        "plan_60d_5levels_ms": round(plan_ms(60 * 24, 60, LEVELS, options.n, 84), 2),
        "plan_60d_5min_5levels_ms": round(plan_ms(60 * 24, 5, LEVELS, options.n, 3), 2),
        "growth": growth(options.n),
        f"optimal_of_{options.jobs}": sum(is_optimal(seed) for seed in range(options.jobs)),
        "n": options.n,
    }
    if options.backtest:
        figures["backtest"] = {name: brief(run_zones(test, carbon, scope_of(name))) for name, test in JOBS.items()}
    print(json.dumps(figures) if options.json else json.dumps(figures, indent=2))
    return 0


def plan_ms(hours: int, minutes: int, levels: tuple[Level, ...], n: int, work: float | None = None) -> float:
    """Return the median CPU time of a plan in milliseconds, without getting the forecast.

    The job has ``work`` hours; half of the time until the deadline if None.
    """
    count = hours * 60 // minutes
    rng = np.random.default_rng(0)
    values = 300 + 100 * np.sin(np.arange(count) * minutes / 1440 * 2 * np.pi) + rng.normal(0, 10, count)
    forecast = Forecast([START + timedelta(minutes=minutes * index) for index in range(count)], values)
    job = Job(work or hours / 2, deadline=START + timedelta(hours=hours), levels=levels)
    times = []
    for _ in range(n + 2):
        begin = time.process_time()
        plan(job, forecast, START)
        times.append(time.process_time() - begin)
    return statistics.median(times[2:]) * 1e3


def growth(n: int) -> dict[str, list[float]]:
    """Return the ratios of plan times when slots, or levels, are doubled."""
    slots = [plan_ms(hours, 60, LEVELS[:1], n) for hours in (24, 48, 96, 192)]
    levels = [plan_ms(96, 60, LEVELS[:count], n) for count in (1, 2, 4)]
    return {
        "slots_24_48_96_192": [round(after / before, 2) for before, after in itertools.pairwise(slots)],
        "levels_1_2_4": [round(after / before, 2) for before, after in itertools.pairwise(levels)],
    }


def is_optimal(seed: int) -> bool:
    """Return whether a general solver finds no better plan than the planner for a random small job."""
    rng = np.random.default_rng(seed)
    slots = int(rng.integers(4, 13))
    values = rng.uniform(10, 800, slots)
    levels = (LEVELS[0], *(LEVELS[index] for index in sorted(rng.choice([1, 2, 3, 4], int(rng.integers(0, 3)), False))))
    job = Job(
        round(float(rng.uniform(0.3, slots)), 1),
        deadline=START + timedelta(hours=slots),
        levels=levels,
        hold_power=float(rng.choice([0.0, 0.1, 0.2, 0.5])),
        resume_cost=float(rng.choice([0.0, 0.1, 0.5])),
        exit_cost=float(rng.choice([0.0, 0.1])),
        hold_cost=float(rng.choice([0.0, 0.05])),
        hold_resume_cost=float(rng.choice([0.0, 0.05])),
        pauses=frozenset(name for name in ("hold", "exit") if rng.random() < 0.8),
        state=str(rng.choice(["running", "held", "out"])),
        safety=0.0,
    )
    forecast = Forecast([START + timedelta(hours=index) for index in range(slots)], values)
    planned = plan(job, forecast, START).gco2e_per_kw
    return planned <= minimum_by_milp(job, values) * (1 + 1e-6) + 1e-6


def scope_of(name: str) -> Scope:
    """Return the kind of intensity of a job in ``JOBS``."""
    return "direct" if name.startswith("direct") else "lifecycle"


def run_zones(test: Backtest, carbon: Path, scope: Scope = "lifecycle") -> list:
    """Return the results of every zone with forecasts."""
    return [
        {"zone": name, "runs": len(test.starts(archive)), "policies": test.run(archive)}
        for name, archive in zones(carbon, scope)
    ]


def zones(carbon: Path, scope: Scope = "lifecycle") -> list[tuple[str, ZoneArchive]]:
    """Return every zone with forecasts."""
    pairs = [
        (carbon / f"{forecast.name.removesuffix('_96h.csv')}.csv", forecast)
        for forecast in sorted((carbon / "forecasts").glob("*_96h.csv"))
    ]
    return [(archive.zone, archive) for archive in (read_archive(*pair, scope) for pair in pairs)]


def brief(results: list) -> dict:
    """Return the summary of the results of several zones."""
    mean = mean_of(results)["policies"]
    ahead = [
        max(row["policies"][name]["saving_pct"] for name in ("run_now", *OTHERS) if name in row["policies"])
        - row["policies"]["planner"]["saving_pct"]
        for row in results
    ]
    return {
        "mean_saving_pct": round(mean["planner"]["saving_pct"], 3),
        "optimal_pct": round(mean["optimal"]["saving_pct"], 3),
        "share_of_optimal": round(mean["planner"]["saving_pct"] / mean["optimal"]["saving_pct"], 3),
        "worst_zone_pct": round(min(row["policies"]["planner"]["saving_pct"] for row in results), 3),
        "most_another_policy_is_ahead_points": round(max(ahead), 3),
        "deadline_misses": sum(row["policies"][name]["deadline_misses"] for row in results for name in row["policies"]),
        "runs": sum(row["runs"] for row in results),
    }


def print_tables(carbon: Path, only: str) -> None:
    """Print a table of savings for each job with ``only`` in its name."""
    for name, test in [(name, test) for name, test in JOBS.items() if only in name]:
        results = run_zones(test, carbon, scope_of(name))
        figures = brief(results)
        print(
            f"24 h of work in 48 h, {name} ({figures['runs']} runs, {figures['deadline_misses']} deadlines missed):\n"
        )
        print(as_markdown(zone_table(results)) + "\n", flush=True)


def print_choices(carbon: Path) -> None:
    """Print saving and harm with other constants and margins."""
    job = JOBS["exit and hold, resume 0.1 h"]
    for scope in ("lifecycle", "direct"):
        archives = [archive for _, archive in zones(carbon, scope)]
        rows = [[f"{scope}, exit, saving %", *(archive.zone for archive in archives), "mean", "harm %"]]
        for name in CHOICES:
            with chosen(name):
                rows.append([name, *cells(job, archives, {})])
        rows.append(["published forecast", *cells(job, archives, {"correct": False})])
        print(as_markdown(rows) + "\n", flush=True)
    archives = [archive for _, archive in zones(carbon)]
    for job in ("exit and hold, resume 0.1 h", "hold only at 20 %"):
        rows = [[f"{job}, saving %", *(archive.zone for archive in archives), "mean", "harm %"]]
        rows += [
            [f"caution {caution:g}", *cells(JOBS[job], archives, {"caution": caution})] for caution in (0.0, 0.5, 1.0)
        ]
        print(as_markdown(rows) + "\n", flush=True)


@contextmanager
def chosen(name: str) -> Iterator[None]:
    """Use other constants."""
    with ExitStack() as stack:
        for module, constant, value in CHOICES[name]:
            stack.enter_context(patch.object(module, constant, value))
        yield


def print_cross_validation(carbon: Path) -> None:
    """Print the saving in each zone with the constants that are best for the other zones (leave one zone out)."""
    job, scores = JOBS["exit and hold, resume 0.1 h"], {}
    archives = [
        (f"{archive.zone} {scope}", archive) for scope in ("lifecycle", "direct") for _, archive in zones(carbon, scope)
    ]
    for name in CHOICES:
        with chosen(name):
            scores[name] = np.array(saving_and_harm(job, [one for _, one in archives], {})[0])
    test = replace(job, every_days=10)
    optimum = [test.run(archive, ("optimal",))["optimal"]["saving_pct"] for _, archive in archives]
    rows, shares = [["saving %", "best in the others", "default", "with those constants", "optimum", "share"]], []
    for index, (label, archive) in enumerate(archives):
        others = [number for number, (_, one) in enumerate(archives) if one.zone != archive.zone]
        best = max(CHOICES, key=lambda name: scores[name][others].mean())
        shares.append(scores[best][index] / optimum[index])
        values = scores["default"][index], scores[best][index], optimum[index], shares[-1]
        rows.append([label, best, *(f"{value:.2f}" for value in values)])
    print(as_markdown(rows))
    print(
        f"\nShare of the optimum in zones that were left out: mean {statistics.mean(shares):.2f}, "
        f"{min(shares):.2f} to {max(shares):.2f}, standard deviation {statistics.stdev(shares):.2f}",
        flush=True,
    )


def print_starts(carbon: Path) -> None:
    """Print the saving of the planner and the highest of the others, for runs that start at other hours."""
    rows = [["saving %: planner / best other", *(name for name, _ in zones(carbon))]]
    for scope in ("lifecycle", "direct"):
        for hour in (1, 20):
            test, cells = Backtest(start_hour=hour, every_days=4), []
            for _, archive in zones(carbon, scope):
                found = {name: row["saving_pct"] for name, row in test.run(archive, ("planner", *OTHERS[:-1])).items()}
                best = max(OTHERS[:-1], key=lambda name: found[name])
                cells.append(f"{found['planner']:.2f} / {found[best]:.2f} {best}")
            rows.append([f"{scope}, from {hour:02d}:00 UTC", *cells])
    print(as_markdown(rows) + "\n", flush=True)


def print_returns(carbon: Path, runs: int) -> None:
    """Print saving, exits and missed deadlines of the planner over ``runs`` random jobs for each time to return."""
    archives, rows = [archive for _, archive in zones(carbon)], [["time to return", "saving %", "exits", "missed"]]
    for minutes in (0, 10, 60):
        rng, emitted, reference, exits, missed = np.random.default_rng(0), 0.0, 0.0, 0, 0
        policies_of = [PlannerPolicy() for _ in archives]
        for _ in range(runs):
            index, work = int(rng.integers(len(archives))), float(rng.uniform(2, 30))
            window = work * float(rng.uniform(1.0, 2.5))
            start_hour = int(rng.integers(24))
            test = Backtest(
                work_hours=work, window_hours=window, start_hour=start_hour, return_hours=minutes / 60, every_days=3
            )
            start = int(rng.choice(test.starts(archives[index])))
            job = test.replay(archives[index], start, policies_of[index])
            emitted += job.attributed
            reference += test.replay(archives[index], start, policies.run_now).attributed
            exits += job.exits
            missed += job.hours > window + 1e-6
        rows.append([f"{minutes} min", f"{100 * (1 - emitted / reference):.2f}", str(exits), str(missed)])
    print(f"{runs} random jobs for each time to return:\n\n{as_markdown(rows)}", flush=True)


def saving_and_harm(test: Backtest, archives: list[ZoneArchive], options: dict) -> tuple[list[float], float]:
    """Return the saving in each zone, and the harm: losses of worse runs as a share of all emissions, both in %."""
    test, savings, harms = replace(test, every_days=10), [], []
    for archive in archives:
        policy, starts = PlannerPolicy(**options), test.starts(archive)
        emissions = [test.replay(archive, start, policy).attributed for start in starts]
        reference = [test.replay(archive, start, policies.run_now).attributed for start in starts]
        savings.append(100 * (1 - sum(emissions) / sum(reference)))
        harms.append(
            100 * sum(max(0.0, own - base) for own, base in zip(emissions, reference, strict=True)) / sum(reference)
        )
    return savings, statistics.mean(harms)


def cells(test: Backtest, archives: list[ZoneArchive], options: dict) -> list[str]:
    """Return the saving in each zone, the mean and the harm as text."""
    savings, harm = saving_and_harm(test, archives, options)
    return [f"{value:.2f}" for value in (*savings, statistics.mean(savings))] + [f"{harm:.3f}"]


if __name__ == "__main__":
    sys.exit(main())
