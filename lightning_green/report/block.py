"""The totals that are printed at the end of a run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_green.utilities.durations import format_duration
from lightning_green.utilities.quantities import format_energy, format_grams, format_percent, quality_text

_GRAMS, _RUN_NOW = "carbon/gco2e", "carbon/counterfactual_gco2e"


def totals_block(summary: Mapping[str, Any], folder: Path | None, record: Mapping[str, Any]) -> str:
    """Return the totals of a run as text.

    Args:
        summary: Result of ``EmissionsTracker.summary()``.
        folder: The run directory, or None.
        record: Content of its ``run.json``.

    """
    quality = summary["energy/quality"]
    parts = [
        f"{name} {format_energy(summary[f'energy/{name}_kwh'])} "
        f"({quality_text(quality.get(name, 'unavailable'), summary[f'energy/{name}_kwh'])})"
        for name in ("cpu", "gpu", "ram", "other", "unmetered")
        if f"energy/{name}_kwh" in summary
    ]
    nodes = f" of {summary['energy/nodes']} nodes" if "energy/nodes" in summary else ""
    lines = [
        f"Energy     {format_energy(summary['energy/kwh'])}{nodes}" + (f": {', '.join(parts)}" if parts else ""),
        *_emissions(summary),
    ]
    waited, elapsed = summary["carbon/hours_waited"] * 3600, summary["carbon/elapsed_hours"] * 3600
    exits = summary["carbon/exits"]
    lines.append(
        f"Time       {format_duration(elapsed)}, {format_duration(waited)} of it waiting, {exits} planned "
        f"{'exit' if exits == 1 else 'exits'}"
    )
    if folder is not None:
        lines.append(f"Ledger     {folder}")
        lines.append(f"Report     lightning-green report {shlex.quote(str(folder))}")
    if record.get("wandb_folders"):
        lines.append(f"W&B        {wandb_sync_line(record)}")
    return "\n".join(["Lightning Green", *(f"  {line}" for line in lines)])


def _emissions(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines about emissions: of each kind, their sources, and what is not known."""
    suffixes = [name.removeprefix(_RUN_NOW) for name in summary if name.startswith(_RUN_NOW)]
    known = [suffix for suffix in suffixes if summary[_GRAMS + suffix] is not None]
    for suffix in known:
        other = suffix if f"carbon/saving_pct{suffix}" in summary else ""
        label = {"": "", "_marginal": " (marginal signal)"}.get(suffix, f" ({suffix.strip('_').replace('_', '/')})")
        yield f"Emissions  {format_grams(summary[_GRAMS + suffix])}{label}"
        run_now, saving = summary[_RUN_NOW + suffix], summary[f"carbon/saving_pct{other}"]
        if run_now is not None and saving is not None:
            share, std = summary.get(f"carbon/known_share{other}"), summary.get(f"carbon/saving_std_pct{other}")
            partly = ""
            if share is not None and share < 0.9995:
                actual = format_grams(summary[f"carbon/gco2e_of_known{suffix}"])
                part = f"the {format_percent(100 * share)} of the work whose intensity is known"
                partly = f" for {part}, which emitted {actual}"
            within = f" ± {format_percent(std)}" if std is not None and std >= 0.05 else ""
            yield f"Run now    {format_grams(run_now)}{label}{partly}: a saving of {format_percent(saving)}{within}"
        else:
            yield f"Run now    unknown{label}: no intensity is known for the time without waiting"
    if not known:
        yield f"Emissions  unknown: {summary.get('carbon/unknown_because') or 'no carbon intensity was available'}"
        return
    if sources := summary.get("carbon/sources"):
        total = sum(sources.values())
        yield "Intensity  " + ", ".join(
            name if len(sources) == 1 else f"{name} for {format_percent(100 * grams / total if total else 0.0)}"
            for name, grams in sources.items()
        )
    if summary["carbon/unpriced_kwh"]:
        unpriced = format_energy(summary["carbon/unpriced_kwh"])
        yield f"Excluded   {unpriced}: no carbon intensity was available at that time"


def wandb_sync_line(record: Mapping[str, Any]) -> str:
    """Return the shell command that uploads all parts of an offline W&B run as one run.

    Each part has a command of its own, because one that cannot be read would stop the upload of all. A kill in the
    first seconds of a process leaves such a part.
    """
    folders = record["wandb_folders"]
    command = f"wandb sync --yes --id {folders[0].rsplit('-', 1)[-1]}"
    if len(folders) == 1:
        return f"{command} {shlex.quote(folders[0])}"
    return f'for part in {shlex.join(folders)}; do {command} "$part"; done'
