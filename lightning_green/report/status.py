"""What a run is doing now, for people."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import Any

from lightning_green.ledger.ledger import STATE_EVENTS, last_state_event, read_ledger
from lightning_green.ledger.run_directory import RunFolder
from lightning_green.ledger.totals import JOULES_PER_KWH, node_of, total
from lightning_green.utilities.clock import SystemClock, clock_from_spec
from lightning_green.utilities.durations import format_duration


def status_text(folder: RunFolder) -> str:
    """Return the state of the run in ``folder``, when it will go on, and its totals."""
    records = read_ledger(folder.path)
    totals = total(records)
    fits = sorted({int(one["fit"]) for one in records if one.get("event") in STATE_EVENTS and one.get("fit")})
    lines = [f"Run       {folder.path}", *_identity(folder.record.get("invocation"))]
    if not fits:
        lines.append(f"State     {_state(folder, records)}")
    for number in [0, *fits] if fits else []:
        own = [record for record in records if record.get("fit", 0) == number]
        lines.append(f"{f'Fit {number}':<9} {_state(folder, own)}: {total(own).kwh:.4f} kWh")
    decision = next((record for record in reversed(records) if record["event"] == "decision"), None)
    if decision is not None:
        lines.append(f"Decision  {decision['reason']}")
    if deadline := next((r["deadline"] for r in reversed(records) if r.get("deadline")), None):
        lines.append(f"Deadline  {datetime.fromisoformat(deadline):%Y-%m-%d %H:%M} UTC")
    parts = [
        f"{name} {joules / JOULES_PER_KWH:.4f} kWh ({totals.quality.get(name, 'unavailable')})"
        for name, joules in totals.joules.items()
    ]
    lines.append(f"Energy    {totals.kwh:.4f} kWh" + (f": {', '.join(parts)}" if parts else ""))
    if totals.between_joules:
        lines.append(f"          and {totals.between_joules / JOULES_PER_KWH:.4f} kWh between the fits, in no sum")
    if len(totals.joules_by_node) > 1:
        nodes = [f"{joules / JOULES_PER_KWH:.4f} kWh" for _, joules in sorted(totals.joules_by_node.items())]
        lines.append(f"Nodes     {len(nodes)}: {', '.join(nodes)}")
    for kind, grams in totals.gco2e.items():
        lines.append(f"Emitted   {grams:.1f} gCO2e ({kind})")
    lines.append(
        f"Time      {format_duration(totals.elapsed_hours * 3600)} since the first start, "
        f"{format_duration(totals.hours_waited * 3600)} of it waiting, {totals.exits} planned "
        f"{'exit' if totals.exits == 1 else 'exits'}, {totals.attempts} {'start' if totals.attempts == 1 else 'starts'}"
    )
    return "\n".join(lines)


def _identity(invocation: dict[str, Any] | None) -> list[str]:
    """Return a line with the script, its arguments, and the variables that tell this run from others."""
    if not invocation:
        return []
    variables = [f"{name}={value}" for name, value in invocation["variables"].items()]
    return [f"Script    {shlex.join([*variables, invocation['script'], *invocation['arguments']])}"]


def _state(folder: RunFolder, records: list[dict[str, Any]]) -> str:
    records = [record for record in records if not node_of(record)]  # the others follow the first node
    last = last_state_event(records)
    if last is None:
        return "not started yet"
    step, event = last.get("global_step", 0), last["event"]
    newest = max((int(record.get("global_step", 0)) for record in records), default=0)
    if event == "started":
        if not folder.is_alive("run"):
            return f"killed at about step {newest}; start it again to continue"
        state = next((record["state"] for record in reversed(records) if "state" in record), "running")
        held = next((r for r in reversed(records) if r.get("state") == "held" and r.get("until")), None)
        if state == "held" and held is not None:
            return f"held in process at step {newest} until {datetime.fromisoformat(held['until']):%Y-%m-%d %H:%M} UTC"
        return f"{state}, at step {newest}"
    if event == "paused":
        spec = folder.record.get("clock")
        clock = SystemClock() if spec is None else clock_from_spec(spec)
        clock.look(folder.path)
        planned = next((r["until"] for r in reversed(records) if r.get("until")), last["until"])
        until = datetime.fromisoformat(planned)
        left = format_duration((until - clock.now()).total_seconds())
        who = "" if folder.is_alive("supervisor") else "; no supervisor is waiting, so start it again by hand"
        return f"out at step {step} until {until:%Y-%m-%d %H:%M} UTC, in {left}{who}"
    return f"{event} at step {step}" + (f": {last['reason']}" if last.get("reason") else "")
