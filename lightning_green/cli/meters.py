"""The command ``lightning-green meters``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lightning_green.cli.messages import fail
from lightning_green.energy.meter import Component
from lightning_green.energy.registry import build_meter
from lightning_green.energy.survey import MeteredComponent, Survey, survey
from lightning_green.utilities.text import printable

UNKNOWN = 1
_EXPECTED: tuple[Component, ...] = ("gpu", "cpu", "ram")


def meters(
    meter: Annotated[
        str, typer.Option(help="The `meter` argument of a callback: auto, auto:node, nvml, rapl, codecarbon, a power.")
    ] = "auto",
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="Time over which the power is measured.")] = 3.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Print what would be measured on this machine, how well, and what makes it better.

    On a cluster, start it on a node of the kind that trains: srun --gres=gpu:1 lightning-green meters

    Exit codes: 0 energy is measured or modeled; 1 none is; 2 wrong usage.
    """
    try:
        found = survey(build_meter(meter), seconds)
    except (ValueError, TypeError, ModuleNotFoundError) as error:
        fail(f"`--meter {meter}` cannot be used: {error}")
    typer.echo(json.dumps(found.to_json()) if as_json else printable("\n".join(describe(found))))
    if not found.is_known:
        raise typer.Exit(UNKNOWN)


def describe(found: Survey) -> list[str]:
    """Return a survey in lines, for people."""
    components = {one.component: one for one in found.components}
    names = dict.fromkeys([*_EXPECTED, *components])
    lines = [f"Meter {found.meter} on {found.host}, {found.seconds:.0f} s"]
    lines += [_line(components[name]) if name in components else f"  {name:<6} not counted" for name in names]
    if any("share" in one.source for one in found.components):
        lines.append(
            "  Share: the job's part of the energy of the machine; this command itself needs little. If a job has the "
            'machine for itself: meter="auto:node"'
        )
    lines += [f"  Note: {problem}" for problem in found.problems]
    if found.remedy:
        lines.append(f"  To read the CPU's sensor: {found.remedy}")
    return lines


def _line(one: MeteredComponent) -> str:
    power = "" if one.watts is None else f"{one.watts:.1f} W"
    return f"  {one.component:<6} {one.quality:<12} {power:>9}  {one.source}"
