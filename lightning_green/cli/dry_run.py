"""``lightning-green run --dry-run``: the plan of a job, without the training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import typer

from lightning_green.check import CheckFailedError
from lightning_green.check.dry_run import first_job
from lightning_green.check.recorded_job import NOT_STARTED, NoJobError, RecordedJob, read_recorded_job
from lightning_green.cli.messages import fail, print_line
from lightning_green.cli.plans import plan_as_json, plan_lines, refreshed
from lightning_green.cli.signals import ended_by_signals
from lightning_green.grid.recorded import grid_from_record
from lightning_green.grid.signal import GridSignal
from lightning_green.ledger.run_directory import load_record
from lightning_green.planning import FORECAST_ARCHIVE_FILE, ForecastArchive, Plan, live_plan
from lightning_green.supervisor.launchers import Launcher
from lightning_green.utilities.clock import clock_from_record
from lightning_green.utilities.durations import format_duration

_NEVER = 1


def dry_run(
    command: Sequence[str] | None, run_dir: Path, fresh: bool, timeout: float, as_json: bool, launcher: Launcher
) -> None:
    """Print whether a job would wait, from its run directory or from a short start of its command.

    Args:
        command: The training command; None for the run in ``run_dir``.
        run_dir: Its run directory, which need not exist.
        fresh: Whether the run in it is not continued.
        timeout: Seconds until the first plan of the command, at most.
        as_json: Whether to print one JSON object.
        launcher: Launcher that the run would wait with.

    """
    from_run = not fresh and (run_dir / "run.json").is_file()
    now = _time_of_run(run_dir) if from_run else datetime.now(timezone.utc)
    if not from_run and not command:
        fail(f"{run_dir} is not a run directory: it has no run.json. Add the command after `--`, or another directory.")
    found = reason = None
    try:
        if from_run:
            found = read_recorded_job(run_dir, now)
        else:
            assert command
            print_line("Starting the command in a copy of this directory, until its first plan.")
            with ended_by_signals():
                found = first_job(command, timeout, launcher, print_line)
            now = datetime.now(timezone.utc)
    except NoJobError as error:
        reason = str(error)
    except (CheckFailedError, OSError) as error:
        fail(str(error))
    if found is None:
        _print_without_plan(str(reason), as_json)
        raise typer.Exit(_NEVER)
    signal = _signal(found)
    with refreshed(signal, now):
        answer = live_plan(signal, found.job, _archive(run_dir) if from_run else ForecastArchive(), now)
    if as_json:
        typer.echo(json.dumps(_as_json(found, answer, signal)))
        return
    for line in _lines(found, answer, signal, now):
        typer.echo(line)


def _time_of_run(run_dir: Path) -> datetime:
    try:
        clock = clock_from_record((load_record(run_dir) or {}).get("clock"))
    except (OSError, RuntimeError, ValueError) as error:  # another version, or damaged
        fail(str(error))
    clock.look(run_dir)
    return clock.now()


def _signal(found: RecordedJob) -> GridSignal:
    if found.grid is None:
        fail("The grid signal of this run belongs to its script and cannot be built again. Dry-run the command.")
    try:
        return grid_from_record(found.grid)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError) as error:
        fail(f"The grid signal of this run cannot be built again: {error}")


def _archive(run_dir: Path) -> ForecastArchive:
    """Return the forecasts that a run has received, without writing to its directory."""
    archive = ForecastArchive(run_dir / FORECAST_ARCHIVE_FILE)
    archive.path = None  # kept in memory from here on
    return archive


def _print_without_plan(reason: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"waits": False, "reason": reason, "plan": None}))
    else:
        typer.echo(f"It would not wait: {reason}.")


def _lines(found: RecordedJob, answer: Plan, signal: GridSignal, now: datetime) -> Iterator[str]:
    job = found.job
    yield _verdict(answer)
    yield answer.reason
    yield from plan_lines(answer)
    work = format_duration(job.work_hours * 3600)
    power = "" if job.full_kw is None else f", {1000 * job.full_kw:.0f} W"
    what = {
        "finished": " (the whole training, because the run has finished)",
        NOT_STARTED: " (estimated from the first batches)",
    }
    yield f"Work      {work} at full power{power}{what.get(found.state, '')}"
    if job.deadline is not None:
        left = format_duration(max(0.0, (job.deadline - now).total_seconds()))
        yield f"Deadline  {job.deadline:%Y-%m-%d %H:%M} UTC, in {left}"
    yield f"Pauses    {' or '.join(sorted(job.pauses)) or 'none'}"
    yield signal.describe()


def _verdict(answer: Plan) -> str:
    waited = _waited(answer)
    if not waited:
        slow = any(slot.action == "throttle" for slot in answer.slots)
        return "It would not wait" + (", and throttle." if slow else ".")
    count = _pauses(answer)
    return f"It would wait {format_duration(waited.total_seconds())}, in {count} {'pause' if count == 1 else 'pauses'}."


def _waited(answer: Plan) -> timedelta:
    return sum((slot.end - slot.start for slot in answer.slots if slot.action in ("hold", "exit")), timedelta(0))


def _pauses(answer: Plan) -> int:
    waits = [slot.action in ("hold", "exit") for slot in answer.slots]
    return sum(now and not before for before, now in zip([False, *waits], waits, strict=False))


def _as_json(found: RecordedJob, answer: Plan, signal: GridSignal) -> dict[str, Any]:
    waited = _waited(answer).total_seconds() / 3600
    return {
        "waits": waited > 0.0,
        "reason": answer.reason,
        "waited_hours": waited,
        "pauses": _pauses(answer),
        "state": found.state,
        "job": replace(found.job, prices=None).to_json(),
        "grid": signal.describe(),
        "plan": plan_as_json(answer),
    }
