"""``lightning-green grid``: show, check and record a carbon-intensity source, and plan with it."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from lightning_green.cli.messages import fail, print_line
from lightning_green.cli.plans import plan_as_json, plan_lines, refreshed
from lightning_green.grid.auto import ZONE_VARIABLE
from lightning_green.grid.chart import chart, hourly_values
from lightning_green.grid.doctor import age, candidates, check
from lightning_green.grid.recording import data_source
from lightning_green.grid.recording import record as record_to
from lightning_green.grid.registry import build_grid, own_zone
from lightning_green.grid.signal import GridSignal, Reading
from lightning_green.planning import Job
from lightning_green.planning import plan as make_plan
from lightning_green.planning.forecast import Forecast
from lightning_green.planning.job import HOLD_POWER
from lightning_green.utilities.durations import parse_duration
from lightning_green.utilities.http.errors import ServiceError

UNKNOWN = 1
_MARKS = {True: "ok", False: "!!", None: "--"}
"""Marks of a source that works, one that fails, and one that is not asked."""

grid_app = typer.Typer(
    name="grid", help="Show, check and record a carbon-intensity source, and plan with it.", no_args_is_help=True
)

Zone = Annotated[
    str | None, typer.Option(help=f'Zone such as DE, US-CAL-CISO or "52.5,13.4". Default: {ZONE_VARIABLE}.')
]
Source = Annotated[
    str,
    typer.Option(help="The `grid` argument of a callback: auto, a source name, a .csv, a number, a JSON spec."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


@grid_app.command()
def show(
    zone: Zone = None,
    source: Source = "auto",
    hours: Annotated[int, typer.Option(min=1, max=168, help="Hours to show.")] = 48,
    as_json: AsJson = False,
) -> None:
    """Print the present carbon intensity with its age and kind, and the forecast as a chart.

    Exit codes: 0 success; 1 no value is known; 2 wrong usage.
    """
    signal, now = build_signal(source, zone), _now()
    with refreshed(signal, now):
        reading, forecast = signal.intensity(now), signal.forecast(now, timedelta(hours=hours))
        if as_json:
            typer.echo(json.dumps(_as_json(signal, reading, forecast, now, hours)))
        else:
            for line in _show_lines(signal, reading, forecast, now, hours):
                typer.echo(line)
    if reading is None and forecast is None:
        raise typer.Exit(UNKNOWN)


@grid_app.command()
def plan(
    work: Annotated[str, typer.Option(help="Remaining work at full power, such as 24h.")],
    deadline: Annotated[str, typer.Option(help="Time until the work has to be complete, such as 48h.")],
    zone: Zone = None,
    source: Source = "auto",
    hold_power: Annotated[
        float, typer.Option(min=0, max=1, help="Fraction of full power drawn while paused in process.")
    ] = HOLD_POWER,
    resume_cost: Annotated[
        float, typer.Option(min=0, help="Energy of one exit and restart, in hours at full power.")
    ] = 0.1,
    return_time: Annotated[
        str, typer.Option(help="Time from starting the job again to its first new step, such as 30min.")
    ] = "0min",
    pause: Annotated[
        list[str] | None, typer.Option(help="Allowed kind of pause, hold or exit; may be given twice. Default: both.")
    ] = None,
    min_saving: Annotated[
        float, typer.Option(min=0, max=1, help="Smallest relative saving that justifies a pause.")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Print the plan for a training with this much work, and its saving.

    Exit codes: 0 success; 2 wrong usage. If no value is known, the plan is to run now, and the exit code is 0.
    """
    signal, now = build_signal(source, zone), _now()
    try:
        job = Job(
            work_hours=parse_duration(work, "work").total_seconds() / 3600,
            deadline=now + parse_duration(deadline, "deadline"),
            hold_power=hold_power,
            resume_cost=resume_cost,
            return_time=parse_duration(return_time, "return_time").total_seconds() / 3600,
            pauses=frozenset(pause if pause is not None else ("hold", "exit")),
            min_saving=min_saving,
        )
    except ValueError as error:
        fail(str(error))
    with refreshed(signal, now):
        horizon = parse_duration(deadline)
        answer = make_plan(job, signal.forecast(now, horizon), now)
        priced = _forecast_origin(signal, now, horizon)
    if as_json:
        typer.echo(json.dumps({**plan_as_json(answer), **priced, "problem": signal.problem}))
        return
    typer.echo(f"{signal.describe()}\n{answer.reason}")
    for line in plan_lines(answer):
        typer.echo(line)
    if priced["source"] is not None:
        typer.echo(f"All figures: {priced['source']}, {priced['quality']}{_failing(signal)}.")


@grid_app.command()
def doctor(
    zone: Zone = None,
    source: Annotated[str | None, typer.Option(help="Only this source.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask each available source, and print one line about its values or its failure.

    Exit codes: 0 all configured sources answer; 1 one of them does not; 2 wrong usage.
    """
    now, answers = _now(), list[dict[str, Any]]()
    try:
        chosen = None if source is None else build_signal(source, zone)
        anywhere = zone or os.environ.get(ZONE_VARIABLE, "").strip() or None
        found = [*candidates(anywhere)] if chosen is None else [(chosen.source, chosen)]
    except ValueError as error:
        fail(str(error))
    for name, signal in found:
        good, line = (None, signal) if isinstance(signal, str) else check(signal, now)
        answers.append({"source": name, "works": good, "text": line})
        if not as_json:
            typer.echo(f"  {_MARKS[good]}  {name:<20} {line}")
    if as_json:
        typer.echo(json.dumps({"zone": anywhere, "sources": answers}))
    if any(one["works"] is False for one in answers):
        raise typer.Exit(UNKNOWN)


@grid_app.command()
def record(
    out: Annotated[Path, typer.Option(help="The .csv file; existing rows are kept.")],
    zone: Zone = None,
    source: Source = "auto",
    every: Annotated[str, typer.Option(help="Time between two requests.")] = "15m",
    duration: Annotated[str | None, typer.Option("--for", help="Stop after this time. Default: never.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Request once, for a cron job.")] = False,
    forecast: Annotated[bool, typer.Option(help="Also write predictions, for a job without internet access.")] = True,
) -> None:
    """Collect the values of a source in a file, for jobs without internet access (grid="file:PATH").

    Long-run means, such as those of `annual` and `typical`, are no data: nothing is written, and the exit code is 1.

    Exit codes: 0 success; 1 no value was known at the last request; 2 wrong usage, or the file cannot be written.
    """
    signal = build_signal(source, zone)
    try:
        step = parse_duration(every, "every").total_seconds()
        end = math.inf if duration is None else time.monotonic() + parse_duration(duration, "for").total_seconds()
    except (ValueError, TypeError) as error:
        fail(str(error))
    if step < 10:
        fail(f"--every should be ten seconds or more, got {every}.")
    known = False
    while True:
        now = _now()
        with refreshed(signal, now, force=once):
            origin = data_source(signal, now)
            known = origin is not None and origin.intensity(now) is not None
            try:
                rows = record_to(signal, out, now, with_forecast=forecast)
            except (OSError, ServiceError) as error:
                fail(f"{out} cannot be written: {error}")
        if rows:
            typer.echo(f"{now:%Y-%m-%d %H:%M} UTC  {rows} rows in {out}")
        else:
            reason = "a long-run mean is no data" if origin is None else f"{origin.source} has no value"
            print_line(f"Nothing is written to {out}: {reason}.")
        if once or time.monotonic() + step > end:
            break
        time.sleep(step)
    if not known:
        raise typer.Exit(UNKNOWN)


def build_signal(source: str, zone: str | None) -> GridSignal:
    """Return the signal for the options; exit with a message if they are invalid."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            text = source.strip()
            grid = json.loads(text) if text.startswith("{") else text
            if zone is None and own_zone(grid) is None:  # as a default for every source without a zone
                zone = os.environ.get(ZONE_VARIABLE, "").strip() or None
            signal = build_grid(grid, zone=zone)
        except TypeError as error:  # an argument in a JSON spec
            fail(f"The source {source!r:.200} cannot be used: {error}. Correct the arguments in its `init_args`.")
        except (ValueError, FileNotFoundError) as error:
            fail(str(error))
    if signal is None:
        reason = str(caught[0].message) if caught else ""
        fail(reason if source != "auto" else f"The zone is missing: pass --zone DE or set {ZONE_VARIABLE}.")
    return signal


def _forecast_origin(signal: GridSignal, now: datetime, horizon: timedelta) -> dict[str, str | None]:
    """Return the source and the quality of the forecast that a plan is made with."""
    part = signal.forecast_signal(now, horizon)
    if part is None:
        return {"source": None, "quality": None}
    return {"source": part.source, "quality": "static" if part.is_static else "forecast"}


def _failing(signal: GridSignal) -> str:
    return f" (the preferred source fails: {signal.problem})" if signal.problem else ""


def _show_lines(
    signal: GridSignal, reading: Reading | None, forecast: Forecast | None, now: datetime, hours: int
) -> Iterator[str]:
    yield signal.describe()
    if reading is None:
        yield f"Now       unknown{f': {signal.problem}' if signal.problem else ''}; a run would not wait"
    else:
        yield f"Now       {reading.value:.0f} gCO2e/kWh, {reading.quality}, {age(reading, now)}, from {reading.source}"
    begin = now.replace(minute=0, second=0, microsecond=0)
    values = [] if forecast is None else hourly_values(forecast, begin, hours)
    if forecast is None or not values:
        yield "Forecast  none"
        return
    known = 0 if forecast.end is None else max(0, min(hours, round((forecast.end - begin).total_seconds() / 3600)))
    low, high = min(range(hours), key=values.__getitem__), max(range(hours), key=values.__getitem__)
    issued = "" if forecast.issued_at is None else f", issued {forecast.issued_at:%H:%M} UTC"
    rest = "" if known >= hours else ", then the same hours of recent days" if len(forecast.history_times) else ""
    span = (
        f"lowest {values[low]:.0f} at {begin + timedelta(hours=low):%a %H:%M}, "
        f"highest {values[high]:.0f} at {begin + timedelta(hours=high):%a %H:%M} (UTC)"
    )
    if values[high] - values[low] < 0.5:
        span = f"{values[0]:.0f} in every hour"
    yield f"Forecast  {known} h{issued}{rest}; {span}"
    yield ""
    yield from chart(values, begin, known)


def _as_json(
    signal: GridSignal, reading: Reading | None, forecast: Forecast | None, now: datetime, hours: int
) -> dict[str, Any]:
    value = None
    if reading is not None:
        value = {
            "gco2e_per_kwh": reading.value,
            "measured_at": reading.measured_at.isoformat(),
            "age_s": (now - reading.measured_at).total_seconds(),
            "quality": reading.quality,
            "source": reading.source,
        }
    ahead = [] if forecast is None else zip(forecast.times, forecast.values.tolist(), strict=True)
    return {
        "zone": signal.zone,
        "kind": str(signal.kind),
        "now": value,
        "forecast": [{"time": at.isoformat(), "gco2e_per_kwh": known} for at, known in ahead],
        "problem": signal.problem,
        "hours": hours,
    }


def _now() -> datetime:
    return datetime.now(timezone.utc)
