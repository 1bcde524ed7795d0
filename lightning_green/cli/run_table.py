"""The list of runs as a table, or as a block for each run where a table is too wide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lightning_green.cli.console import cell
from lightning_green.report.run_list import UNREADABLE, RunSummary
from lightning_green.report.run_state import EXITED, FAILED, FINISHED, HELD, KILLED
from lightning_green.report.status import covers_enough, format_saving
from lightning_green.utilities.durations import format_duration
from lightning_green.utilities.quantities import format_energy, format_grams

_UNKNOWN = "-"
_ANY_WIDTH = 10_000
_STYLES = {
    **dict.fromkeys((FAILED, KILLED, UNREADABLE), "red"),
    **dict.fromkeys((EXITED, HELD), "yellow"),
    **dict.fromkeys(("running", "throttled"), "green"),
    FINISHED: "dim",
}
_COLUMNS: tuple[tuple[str, Callable[[RunSummary], str]], ...] = (
    ("Steps", lambda run: progress(run)),
    ("Energy", lambda run: _UNKNOWN if run.energy_kwh is None else format_energy(run.energy_kwh)),
    ("Emissions", lambda run: _UNKNOWN if run.gco2e is None else format_grams(run.gco2e)),
    ("Saving", lambda run: saving(run)),
    ("Waited", lambda run: format_duration(3600 * run.waited_hours) if run.waited_hours else _UNKNOWN),
)


def runs_view(runs: Sequence[RunSummary], base: Path, console: Console) -> RenderableType:
    """Return the list of runs for a console: a table if its width suffices.

    Args:
        runs: The runs.
        base: Directory to which the names of the runs are relative.
        console: The console.

    """
    table = _table(runs, base)
    if Measurement.get(console, console.options.update(max_width=_ANY_WIDTH), table).maximum <= console.width:
        problems = [_problem(run, base) for run in runs if run.problem is not None]
        return Group(table, *problems)
    return Group(*_blocks(runs, base))


def progress(run: RunSummary) -> str:
    """Return the steps of a run, and their total if it is known."""
    if run.steps is None:
        return _UNKNOWN
    return str(run.steps) if run.total_steps is None else f"{run.steps} of {run.total_steps}"


def saving(run: RunSummary) -> str:
    """Return the saving of a run; a dash if it is unknown, or known for less than half of the work."""
    if not covers_enough(run.known_share):
        return _UNKNOWN
    return format_saving(run.saving_pct, run.saving_std_pct, run.known_share)


def run_name(run: RunSummary, base: Path) -> str:
    """Return the path of a run relative to a directory; the name of the directory itself for a run in it."""
    path = Path(run.run_dir)
    return str(path.relative_to(base)) if base in path.parents else str(path)


def _table(runs: Sequence[RunSummary], base: Path) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Run", no_wrap=True)
    table.add_column("State", no_wrap=True)
    for name, _ in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Next", no_wrap=True)
    for run in runs:
        if run.problem is None:
            cells = [_name(run, base), _state(run), *(cell(text(run)) for _, text in _COLUMNS), cell(run.next)]
            table.add_row(*cells)
    return table


def _blocks(runs: Sequence[RunSummary], base: Path) -> Iterator[RenderableType]:
    for run in runs:
        if run.problem is not None:
            yield _problem(run, base)
            continue
        yield Text.assemble(_name(run, base), "  ", _state(run))
        parts = [f"{progress(run)} steps", *(f"{name.lower()} {value(run)}" for name, value in _COLUMNS[1:])]
        known = [part for part in parts if not part.startswith(_UNKNOWN) and not part.endswith(f" {_UNKNOWN}")]
        lines = [", ".join(known), run.next]
        if text := ". ".join(line for line in lines if line):
            yield Padding(cell(text), (0, 0, 0, 2))


def _name(run: RunSummary, base: Path) -> Text:
    return cell(run_name(run, base), "bold")


def _state(run: RunSummary) -> Text:
    return cell(run.state, _STYLES.get(run.state, ""))


def _problem(run: RunSummary, base: Path) -> Text:
    return Text.assemble(_name(run, base), "  ", _state(run), "  ", cell(run.problem))
