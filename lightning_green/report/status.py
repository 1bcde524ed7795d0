"""Status of a run as text."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.report.budget_text import budget_fields, describe_budget
from lightning_green.report.run_state import describe_state
from lightning_green.report.run_status import Emissions, RunStatus, read_run_status
from lightning_green.utilities.durations import format_duration
from lightning_green.utilities.quantities import format_energy, format_grams, format_percent, quality_text

LEAST_KNOWN_SHARE = 0.5
"""Fraction of the work whose intensity without waiting is known, below which a saving is not shown alone."""


def status_text(folder: RunDirectory, exit_code: int | None = None) -> str:
    """Return the state, the next start and the totals of a run.

    Args:
        folder: The run directory.
        exit_code: Exit code of the supervisor of its command; None if it is unknown or the command has not ended.

    """
    return describe_run(read_run_status(folder.path, exit_code))


def describe_run(run: RunStatus) -> str:
    """Return the status of a run as text."""
    return "\n".join(_lines(run))


def _lines(run: RunStatus) -> Iterator[str]:
    yield f"Run       {run.path}"
    if run.script is not None:
        yield f"Script    {run.script}"
    if not run.fits:
        yield f"State     {describe_state(run.state, run.now)}"
    for fit in run.fits:
        yield f"{f'Fit {fit.fit}':<9} {describe_state(fit.state, run.now)}: {format_energy(fit.energy_kwh)}"
    if run.decision is not None:
        yield f"Decision  {run.decision}"
    if run.deadline is not None:
        yield f"Deadline  {run.deadline:%Y-%m-%d %H:%M} UTC"
    parts = [
        f"{one.component} {format_energy(one.kwh)} ({quality_text(one.quality, one.kwh)})" for one in run.components
    ]
    yield f"Energy    {format_energy(run.energy_kwh)}" + (f": {', '.join(parts)}" if parts else "")
    if run.between_fits_kwh:
        yield f"          and {format_energy(run.between_fits_kwh)} between the fits, not included"
    if run.node_kwh:
        yield f"Nodes     {len(run.node_kwh)}: {', '.join(format_energy(kwh) for kwh in run.node_kwh)}"
    for emissions in run.emissions:
        yield from _emission_lines(emissions)
    if run.budget is not None and (used := describe_budget(**budget_fields(run.budget))):
        yield f"Budget    {used}"
    yield (
        f"Time      {format_duration(run.elapsed_hours * 3600)} since the first start, "
        f"{format_duration(run.waited_hours * 3600)} of it waiting, {run.exits} planned "
        f"{'exit' if run.exits == 1 else 'exits'}, {run.starts} {'start' if run.starts == 1 else 'starts'}"
    )


def _emission_lines(one: Emissions) -> Iterator[str]:
    sources = [f"{own.source} ({own.quality})" if own.quality else own.source for own in one.sources]
    named = "; ".join([one.kind, ", ".join(sources)]) if any(sources) else one.kind
    yield f"Emissions {format_grams(one.gco2e)} ({named})"
    if one.saving_pct is not None and one.run_now_gco2e is not None:
        part = ""
        if one.known_share is not None and one.known_share < 0.9995:
            work = f"the {format_percent(100 * one.known_share)} of the work whose intensity is known"
            part = f" for {work}, which emitted {format_grams(one.gco2e_of_known)}"
        saving = format_saving(one.saving_pct, one.saving_std_pct)
        yield f"Run now   {format_grams(one.run_now_gco2e)}{part}: a saving of {saving}"


def covers_enough(known_share: float | None) -> bool:
    """Return whether a saving covers enough of the work to be shown without it."""
    return known_share is None or known_share >= LEAST_KNOWN_SHARE


def format_saving(percent: float | None, std: float | None, known_share: float | None = None) -> str:
    """Return a saving with its standard deviation; a dash if it is unknown.

    Args:
        percent: The saving in percent, or None.
        std: Its standard deviation, or None.
        known_share: Fraction of the work that it covers; it is part of the text if it is below 1.

    Examples:
        >>> format_saving(12.34, 1.2), format_saving(-3.0, None, 0.5), format_saving(None, None)
        ('12.3 % ± 1.2 %', '-3.0 % (of 50 %)', '-')

    """
    if percent is None:
        return "-"
    part = f" (of {100 * known_share:.0f} %)" if known_share is not None and known_share < 0.995 else ""
    return format_percent(percent) + (f" ± {format_percent(std)}" if std is not None and std >= 0.05 else "") + part
