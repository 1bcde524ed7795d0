"""The runs below a directory, one summary each."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lightning_green.ledger.ledger import LEDGER_FILES
from lightning_green.ledger.run_directory import RUNS, is_alive, run_directories
from lightning_green.report.run_cache import SummaryCache, stamp_of
from lightning_green.report.run_state import describe_next, is_supervised
from lightning_green.report.run_status import RunStatus, read_run_status
from lightning_green.supervisor.command import FILE as COMMAND_FILE
from lightning_green.supervisor.command import read_command
from lightning_green.utilities.text import printable

UNREADABLE = "unreadable"
_DEPTH = 4
"""Levels of directories in which runs are looked for."""


@dataclass(frozen=True)
class RunSummary:
    """One line about a run.

    Args:
        run_dir: Run directory.
        state: Name of its state, see ``RunState``; ``"unreadable"`` for a damaged one.
        steps: Optimizer steps done, summed over the fits; None if no training was recorded.
        total_steps: Steps up to the limits of the Trainer, or None.
        energy_kwh: Energy, or None.
        gco2e: Emissions by the first kind of carbon intensity, or None.
        saving_pct: Saving against running without waiting in percent, or None.
        saving_std_pct: Its standard deviation, or None.
        known_share: Fraction of the work that the saving covers, or None.
        waited_hours: Hours paused in process or exited.
        next: What happens next; empty if nothing does.
        until: End of a pause (ISO 8601), or None.
        problem: Why the directory cannot be read, or None.
        changed: Time of the last change of its ledgers in seconds since the epoch.

    """

    run_dir: str
    state: str
    steps: int | None = None
    total_steps: int | None = None
    energy_kwh: float | None = None
    gco2e: float | None = None
    saving_pct: float | None = None
    saving_std_pct: float | None = None
    known_share: float | None = None
    waited_hours: float = 0.0
    next: str = ""
    until: str | None = None
    problem: str | None = None
    changed: float = 0.0

    @classmethod
    def of(cls, run: RunStatus, changed: float = 0.0) -> RunSummary:
        """Return the summary of a status."""
        main = run.emissions[0] if run.emissions else None
        return cls(
            run_dir=str(run.path),
            state=run.state.name,
            steps=None if run.state.step is None else run.steps,
            total_steps=run.total_steps,
            energy_kwh=run.energy_kwh,
            gco2e=None if main is None else main.gco2e,
            saving_pct=None if main is None else main.saving_pct,
            saving_std_pct=None if main is None else main.saving_std_pct,
            known_share=None if main is None else main.known_share,
            waited_hours=run.waited_hours,
            next=describe_next(run.state, run.now, run.expected_end),
            until=None if run.state.until is None else run.state.until.isoformat(),
            changed=changed,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the summary as a JSON object."""
        return asdict(self)


def find_runs(folder: Path) -> Iterator[Path]:
    """Yield the run directories in and below a directory, at most four levels deep.

    Hidden directories and symbolic links are skipped. Below a run directory only its ``runs/`` contains others.
    """
    if is_run(folder):
        yield folder
    yield from _below(folder, _DEPTH)


def _below(folder: Path, depth: int) -> Iterator[Path]:
    inside = is_run(folder)
    try:
        entries = sorted(
            (entry for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)), key=lambda one: one.name
        )
    except OSError:  # no permission: it is no directory of this user
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") or (inside and entry.name != RUNS):
            continue
        if is_run(path):
            yield path
            yield from _below(path, max(depth - 1, 2))
        elif depth > 1:
            yield from _below(path, depth - 1)


def is_run(path: Path) -> bool:
    """Return whether a directory is a run directory."""
    return any(os.path.lexists(path / name) for name in ("run.json", COMMAND_FILE))


def runs_of_command(home: Path) -> Iterator[tuple[Path, int | None]]:
    """Yield a run directory and those of the runs that its command has started.

    Each comes with the exit code of the command, which is None for a run that the command may not have started.
    """
    codes = {home: read_command(home).get("exit_code")}
    for path in run_directories(home):
        yield path, codes.get(path)


def list_runs(folder: Path, cache: SummaryCache | None = None) -> list[RunSummary]:
    """Return a summary of each run in and below a directory, the newest first. Writes nothing in them.

    Args:
        folder: The directory.
        cache: Summaries of runs that have ended; None to read all ledgers.

    """
    with fast_reading():
        found = [_summary(path, cache) for path in find_runs(folder)]
    if cache is not None:
        cache.save()
    return sorted(found, key=lambda one: (-one.changed, one.run_dir))


def _summary(path: Path, cache: SummaryCache | None) -> RunSummary:
    changed = 0.0
    try:
        changed = _changed(path)
        stamp, supervised = stamp_of(path), is_supervised(path)
        known = None if cache is None or supervised or is_alive(path) else _cached(cache.load(path, stamp))
        if known is not None:
            return replace(known, changed=changed)
        status = read_run_status(path, read_command(path).get("exit_code"))
        summary = RunSummary.of(status, changed)
        if cache is not None and status.state.is_settled and not supervised:
            cache.keep(path, stamp, summary.to_json())
    except (OSError, RuntimeError, ValueError, TypeError, OverflowError) as error:
        return RunSummary(str(path), UNREADABLE, problem=_reason(path, error), changed=changed)
    return summary


def _cached(record: dict[str, Any] | None) -> RunSummary | None:
    try:
        return None if record is None else RunSummary(**record)
    except TypeError:  # the fields of another version
        return None


def _reason(path: Path, error: Exception) -> str:
    text = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
    return " ".join(printable(text.replace(f"{path}{os.sep}", "")).split())


def _changed(path: Path) -> float:
    files = [*path.glob(LEDGER_FILES), path / "run.json", path / COMMAND_FILE]
    return max((file.lstat().st_mtime for file in files if os.path.lexists(file)), default=0.0)


@contextmanager
def fast_reading() -> Iterator[None]:
    """Pause the garbage collector, which takes a third of the time of reading a long ledger."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
