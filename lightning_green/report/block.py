"""The totals that are printed at the end of a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_green.utilities.durations import format_duration


def _energy(kwh: float) -> str:
    return f"{kwh:.3f} kWh" if kwh >= 0.1 else f"{kwh * 1000:.3f} Wh"


def _grams(grams: float) -> str:
    return f"{grams / 1000:.3f} kgCO2e" if grams >= 1000 else f"{grams:.3f} gCO2e"


def totals_block(summary: Mapping[str, Any], folder: Path | None, record: Mapping[str, Any]) -> str:
    """Return the totals of a run as text.

    Args:
        summary: Result of ``EmissionsTracker.summary()``.
        folder: The run directory, or None.
        record: Content of its ``run.json``.

    """
    quality = summary["energy/quality"]
    parts = [
        f"{name} {_energy(summary[f'energy/{name}_kwh'])} ({quality.get(name, 'unavailable')})"
        for name in ("cpu", "gpu", "ram", "other")
        if f"energy/{name}_kwh" in summary
    ]
    nodes = f" of {summary['energy/nodes']} nodes" if "energy/nodes" in summary else ""
    lines = [f"Energy     {_energy(summary['energy/kwh'])}{nodes}" + (f": {', '.join(parts)}" if parts else "")]
    suffix = "_marginal" if "carbon/gco2e_marginal" in summary else ""
    grams, run_now = summary[f"carbon/gco2e{suffix}"], summary[f"carbon/counterfactual_gco2e{suffix}"]
    label = " (marginal signal)" if suffix else ""
    if grams is not None:
        lines.append(f"Emissions  {_grams(grams)}{label}")
        if run_now is not None:
            saving = round(summary["carbon/saving_pct"], 1) + 0.0  # avoids "-0.0 %"
            lines.append(f"Run now    {_grams(run_now)}{label}: a saving of {saving:.1f} %")
    else:
        lines.append("Emissions  unknown: pass `grid`, for example EmissionsTracker(grid='typical:DE')")
    if summary["carbon/unpriced_kwh"] > 0 and grams is not None:
        lines.append(
            f"Excluded   {_energy(summary['carbon/unpriced_kwh'])}: no carbon intensity was available at that time"
        )
    waited, elapsed = summary["carbon/hours_waited"] * 3600, summary["carbon/elapsed_hours"] * 3600
    exits = summary["carbon/exits"]
    lines.append(
        f"Time       {format_duration(elapsed)}, {format_duration(waited)} of it waiting, {exits} planned "
        f"{'exit' if exits == 1 else 'exits'}"
    )
    if folder is not None:
        lines.append(f"Ledger     {folder}")
    if record.get("wandb_folders"):
        lines.append(f"W&B        {wandb_sync_line(record)}")
    return "\n".join(["Lightning Green", *(f"  {line}" for line in lines)])


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
