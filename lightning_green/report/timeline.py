"""Figure of a run over time: carbon intensity, states and cumulative emissions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_green.ledger.account import FitAccounts, account_by_fit
from lightning_green.ledger.events import Decision, Event, Started
from lightning_green.report.spans import Span, spans

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_green.grid.signal import GridSignal

Events = Sequence[Event]
Axes = Any  # the annotations of matplotlib do not allow datetimes

COLORS = {
    "running": "#2a9d6f",
    "throttled": "#8fcf9f",
    "held": "#eda73a",
    "out": "#dfe4ea",
    "stopped": "#e4572e",
}
"""Color of each state, in the order of the legend. ``stopped`` is the time after a kill or a crash."""

LABELS = {"out": "exited"}
"""Labels in the legend that differ from the name of the state."""

INK, FAINT, REFERENCE = "#1f2933", "#7b8794", "#9aa5b1"


class Step(NamedTuple):
    """A constant carbon intensity in gCO2e/kWh from ``start`` to ``end``."""

    start: datetime
    end: datetime
    value: float


def timeline(
    events: Events, reference: Events | None = None, grid: GridSignal | None = None, title: str | None = None
) -> Figure:
    """Return a figure of one run from its ledger.

    The upper panel shows the carbon intensity, filled with the color of the state at that time. The middle panel shows
    the states as a bar, and the lower panel the cumulative emissions. Requires matplotlib:
    ``pip install 'lightning-green[demo]'``.

    Args:
        events: Events of the run from ``read_ledger``.
        reference: Events of another run to compare with, such as the same training without waiting.
        grid: Signal for the carbon intensity while the run had exited. Without it, the curve has gaps.
        title: Title of the figure; by default the emissions of the run.

    Raises:
        ValueError: If ``events`` contains no start of a run.
        ModuleNotFoundError: If matplotlib is not installed.

    Examples:
        ```python
        from lightning_green.report.timeline import timeline
        from lightning_green.ledger.ledger import read_ledger
        timeline(read_ledger(Path("lightning_green_runs/train-1a2b3c4d"))).savefig("timeline.png", dpi=160)
        ```

    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The timeline needs matplotlib: pip install 'lightning-green[demo]'.", name=error.name
        ) from error

    own = spans(events)
    if not own:
        raise ValueError(
            "`events` should contain the events of a run, such as read_ledger(run_dir), got no start of a run."
        )
    compared = [] if reference is None else spans(reference)
    end = max(_deadline(events) or own[-1].end, own[-1].end)
    layout = ConstrainedLayoutEngine(h_pad=0.04, w_pad=0.1, hspace=0.02)
    figure = Figure(figsize=(11.0, 6.6), facecolor="white", layout=layout)
    heights = [3.2, 0.42 if not compared else 0.72, 1.7]
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=heights)
    _draw_intensity(top, _steps(events, own[0].start, end, grid), own)
    _draw_states(middle, own, compared)
    _draw_emissions(bottom, events, reference)
    _draw_deadline((top, middle, bottom), _deadline(events))
    _draw_time_axis(bottom, own[0].start, end)
    figure.suptitle(title or _title(events, reference), x=0.012, ha="left", fontsize=15, fontweight="bold", color=INK)
    figure.supxlabel(_footnote(events), x=0.012, ha="left", fontsize=8.5, color=FAINT)
    return figure


# -- the three panels -------------------------------------------------------------------------------------------------


def _draw_intensity(axes: Axes, steps: Sequence[Step], own: Sequence[Span]) -> None:
    from matplotlib.patches import Patch

    high = max((step.value for step in steps), default=1.0) or 1.0
    for span in own:
        for step in steps:
            start, end = max(span.start, step.start), min(span.end, step.end)
            if start < end:
                color = COLORS[span.state]
                axes.fill_between([start, end], 0.0, step.value, color=color, alpha=0.85, linewidth=0)
    for times, values in _curves(steps):
        axes.plot(times, values, color=INK, linewidth=1.5, solid_joinstyle="miter")
    axes.set_ylim(0.0, 1.12 * high)
    axes.set_ylabel("Grid intensity\ngCO₂e/kWh", color=INK, fontsize=10)
    shown = {span.state for span in own}
    patches = [Patch(color=color, label=LABELS.get(state, state)) for state, color in COLORS.items() if state in shown]
    axes.legend(
        handles=patches, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(patches), frameon=False,
        fontsize=9.5, labelcolor=INK, handlelength=1.0, handleheight=0.9, borderaxespad=0.2, columnspacing=1.4,
    )  # fmt: skip
    _plain(axes)


def _draw_states(axes: Axes, own: Sequence[Span], compared: Sequence[Span]) -> None:
    rows = [("this run", own)] if not compared else [("run now", compared), ("this run", own)]
    for row, (_, states) in enumerate(rows):
        for span in states:
            axes.barh(row, span.end - span.start, left=span.start, height=0.62, color=COLORS[span.state], linewidth=0)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=10, color=INK)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    _plain(axes)
    axes.spines["bottom"].set_visible(False)


def _draw_emissions(axes: Axes, events: Events, reference: Events | None) -> None:
    lines = [("run now", reference, REFERENCE, (0, (4, 2))), ("this run", events, COLORS["running"], "solid")]
    ends: list[tuple[datetime, float, str, str]] = []
    for name, own, color, style in lines:
        times, grams = _emissions(own or ())
        if times:
            axes.plot(times, [g / 1000 for g in grams], color=color, linewidth=2.2, linestyle=style)
            ends.append((times[-1], grams[-1] / 1000, name, color))
    most = max((end[1] for end in ends), default=0.0) or 1.0
    for at, kilograms, name, color in ends:
        axes.plot([at], [kilograms], "o", color=color, markersize=5)
        label = f"{name}: {kilograms:.2f} kg" if kilograms >= 0.1 else f"{name}: {kilograms * 1000:.2f} g"
        above = kilograms == most or kilograms < 0.8 * most
        axes.annotate(
            label, (at, kilograms), xytext=(-7, 5 if above else -5), textcoords="offset points", ha="right",
            va="bottom" if above else "top", fontsize=9.5, color=INK, fontweight="bold",
        )  # fmt: skip
    axes.set_ylabel("Emitted so far\nkgCO₂e", color=INK, fontsize=10)
    axes.set_ylim(0.0, 1.25 * most)
    _plain(axes)


def _draw_deadline(panels: Sequence[Axes], deadline: datetime | None) -> None:
    if deadline is None:
        return
    for axes in panels:
        axes.axvline(deadline, color=COLORS["stopped"], linewidth=1.2, linestyle=(0, (3, 2)))
    panels[0].annotate(
        "deadline", (deadline, 1.0), xycoords=("data", "axes fraction"), xytext=(-4, -3), textcoords="offset points",
        ha="right", va="top", fontsize=9, color=COLORS["stopped"],
    )  # fmt: skip


def _draw_time_axis(axes: Axes, start: datetime, end: datetime) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    margin = (end - start) * 0.008
    axes.set_xlim(start - margin, end + margin)
    locator = AutoDateLocator(minticks=6, maxticks=14, tz=timezone.utc)
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, tz=timezone.utc, show_offset=False)
    formatter.formats[2:4] = ["%a %d %b", "%H:%M"]
    formatter.zero_formats[2:4] = ["%d %b", "%a %d %b"]
    axes.xaxis.set_major_formatter(formatter)
    axes.tick_params(axis="x", labelsize=9.5, colors=INK, pad=6)


def _plain(axes: Axes) -> None:
    """Remove decorations of the axes."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#cbd2d9")
    axes.tick_params(axis="both", length=0, labelsize=9.5, labelcolor=INK)
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)


# -- the data ---------------------------------------------------------------------------------------------------------


def _steps(events: Events, start: datetime, end: datetime, grid: GridSignal | None) -> list[Step]:
    """Return the intensities from ``start`` to ``end`` from the grid if given, else from the ledger."""
    if grid is not None:
        length = grid.resolution()
        at = start - timedelta(seconds=start.timestamp() % length.total_seconds())
        steps = []
        while at < end:
            reading = grid.intensity(at)
            if reading is not None:
                steps.append(Step(max(at, start), min(at + length, end), reading.value))
            at += length
        return steps
    steps, before = [], dict[tuple[Any, Any], datetime]()
    for event in events:
        if event.measured is None:
            continue
        at, key = event.time, (event.node, event.attempt)
        if event.measured.intensity is not None and key in before and before[key] < at:
            steps.append(Step(before[key], at, event.measured.intensity.value))
        before[key] = at
    return steps


def _curves(steps: Sequence[Step]) -> list[tuple[list[datetime], list[float]]]:
    """Return the steps as lines to plot. A gap between steps starts a new line."""
    curves: list[tuple[list[datetime], list[float]]] = []
    for step in steps:
        if not curves or curves[-1][0][-1] != step.start:
            curves.append(([], []))
        curves[-1][0].extend((step.start, step.end))
        curves[-1][1].extend((step.value, step.value))
    return curves


def _emissions(events: Events) -> tuple[list[datetime], list[float]]:
    """Return times and the gCO2e emitted until then; empty lists if no intensity is known."""
    accounts: FitAccounts = {}
    times, grams = list[datetime](), list[float]()
    for event in events:
        account_by_fit([event], accounts)
        so_far = _grams(accounts)
        if so_far is not None and event.measured is not None and not event.node_rank:
            times.append(event.time)
            grams.append(so_far)
    for account in accounts.values():
        account.settle()
    so_far = _grams(accounts)
    if times and so_far is not None:
        grams[-1] = so_far
    return times, grams


def _grams(accounts: FitAccounts) -> float | None:
    """Return the emissions of all fits; None if no intensity is known or signals of two kinds were used."""
    emissions = [account.totals.gco2e for account in accounts.values()]
    kinds = {kind for grams in emissions for kind in grams}
    return sum(grams.get(kind, 0.0) for grams in emissions for kind in kinds) if len(kinds) == 1 else None


def _title(events: Events, reference: Events | None) -> str:
    _, grams = _emissions(events)
    _, compared = _emissions(reference or ())
    if not grams:
        return "States of the run"
    amount = f"{grams[-1] / 1000:.2f} kgCO₂e" if grams[-1] >= 100 else f"{grams[-1]:.2f} gCO₂e"
    if not compared or compared[-1] == 0.0:
        return f"The run emitted {amount}"
    change = 100.0 * (1.0 - grams[-1] / compared[-1])
    return f"The run emitted {amount}, {abs(change):.0f} % {'less' if change >= 0 else 'more'} than running now"


def _footnote(events: Events) -> str:
    """Return the sources of the numbers."""
    meter = next((event.meter for event in events if isinstance(event, Started) and event.meter), "not measured")
    measured = [event.measured for event in events if event.measured is not None]
    priced = next((one.intensity for one in measured if one.intensity is not None), None)
    parts = ["Times are UTC.", f"Energy: {meter}."]
    if priced is not None:
        estimate = ", an estimate" if priced.quality == "static" else ""
        parts.append(f"Intensity: {priced.source}, {priced.kind}{estimate}.")
    return " ".join(parts)


def _deadline(events: Events) -> datetime | None:
    return next((one.deadline for one in reversed(events) if isinstance(one, Decision) and one.deadline), None)
