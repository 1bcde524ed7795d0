"""State of a run as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_green.ledger.events import Decision, Event, Paused, Started, StateChanged, StateEvent
from lightning_green.ledger.history import read_history
from lightning_green.ledger.ledger import last_state_event
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.ledger.totals import Totals
from lightning_green.utilities.clock import clock_from_record
from lightning_green.utilities.durations import format_duration
from lightning_green.utilities.quantities import format_energy, format_grams, quality_text
from lightning_green.utilities.redaction import shell_line
from lightning_green.utilities.units import JOULES_PER_KWH


def status_text(folder: RunDirectory, exit_code: int | None = None) -> str:
    """Return the state, the next start and the totals of a run.

    Args:
        folder: The run directory.
        exit_code: Exit code of the supervisor of its command; None if it is unknown or the command has not ended.

    """
    history = read_history(folder.path)
    for account in history.accounts.values():
        account.settle()
    events, totals = history.events, history.totals
    fits = sorted({event.fit for event in events if isinstance(event, StateEvent) and event.fit})
    lines = [f"Run       {folder.path}", *_identity(folder.record.get("invocation"))]
    if not fits:
        lines.append(f"State     {_state(folder, events, max(history.steps_by_fit.values(), default=0), exit_code)}")
    for number in [0, *fits] if fits else []:
        own = [event for event in events if event.fit == number]
        fit = history.accounts[number].totals if number in history.accounts else Totals()
        kwh = fit.kwh if fit.is_energy_known else None
        lines.append(
            f"{f'Fit {number}':<9} {_state(folder, own, history.steps_by_fit.get(number, 0))}: {format_energy(kwh)}"
        )
    decision = next((event for event in reversed(events) if isinstance(event, Decision)), None)
    if decision is not None:
        lines.append(f"Decision  {decision.reason}")
    if deadline := next((e.deadline for e in reversed(events) if isinstance(e, Decision) and e.deadline), None):
        lines.append(f"Deadline  {deadline:%Y-%m-%d %H:%M} UTC")
    parts = [
        f"{name} {format_energy(totals.known_kwh(name))} ({quality_text(quality, totals.known_kwh(name))})"
        for name, quality in totals.quality.items()
    ]
    energy = format_energy(totals.kwh if totals.is_energy_known else None)
    lines.append(f"Energy    {energy}" + (f": {', '.join(parts)}" if parts else ""))
    if totals.between_joules:
        lines.append(
            f"          and {format_energy(totals.between_joules / JOULES_PER_KWH)} between the fits, not included"
        )
    if len(totals.by_node) > 1:
        nodes = [format_energy(node.joules / JOULES_PER_KWH) for _, node in sorted(totals.by_node.items())]
        lines.append(f"Nodes     {len(nodes)}: {', '.join(nodes)}")
    for kind, grams in totals.gco2e.items() if totals.is_energy_known else ():
        sources = [
            f"{source} ({quality})" if quality else source
            for known, source, quality in totals.gco2e_by_source
            if known == kind
        ]
        lines.append(
            f"Emitted   {format_grams(grams)} ({'; '.join([kind, ', '.join(sources)]) if any(sources) else kind})"
        )
    elapsed, waited = totals.elapsed_hours, totals.hours_waited
    if totals.out_since is not None and totals.last_time is not None:  # it is waiting at this moment
        clock = clock_from_record(folder.record.get("clock"))
        clock.look(folder.path)
        since = max(0.0, clock.time() - totals.last_time) / 3600.0
        elapsed, waited = elapsed + since, waited + since
    lines.append(
        f"Time      {format_duration(elapsed * 3600)} since the first start, "
        f"{format_duration(waited * 3600)} of it waiting, {totals.exits} planned "
        f"{'exit' if totals.exits == 1 else 'exits'}, {totals.attempts} {'start' if totals.attempts == 1 else 'starts'}"
    )
    return "\n".join(lines)


def _identity(invocation: dict[str, Any] | None) -> list[str]:
    """Return a line with the script, its arguments and the variables that are part of its identity."""
    if not invocation:
        return []
    variables = [f"{name}={value}" for name, value in invocation["variables"].items()]
    return [f"Script    {shell_line([*variables, invocation['script'], *invocation['arguments']])}"]


def _state(folder: RunDirectory, events: Sequence[Event], steps: int, exit_code: int | None = None) -> str:
    events = [event for event in events if not event.node_rank]  # all nodes have the state of rank 0
    last = last_state_event(events)
    if last is None and exit_code is None:
        return "not started yet"
    if last is None:
        if exit_code == 0:
            return "the command ended without a recorded training"
        return f"the command failed before its first training; its error output is in {folder.path / 'stderr.log'}"
    if isinstance(last, Started):
        return _running(folder, events, steps)
    step = last.global_step or 0
    if isinstance(last, Paused):
        planned = (event.until for event in reversed(events) if isinstance(event, (Decision, Paused)))
        until = next((time for time in planned if time), None)
        if until is None:
            return f"exited at step {step}; restart it manually, because the time of its next start is not recorded"
        clock = clock_from_record(folder.record.get("clock"))
        clock.look(folder.path)
        remaining = format_duration((until - clock.now()).total_seconds())
        note = "" if folder.is_alive("supervisor") else "; no supervisor is waiting, so restart it manually"
        return f"exited at step {step} until {until:%Y-%m-%d %H:%M} UTC, in {remaining}{note}"
    return f"{last.name} at step {step}" + (f": {last.reason}" if last.reason else "")


def _running(folder: RunDirectory, events: Sequence[Event], step: int) -> str:
    """Return the state of a run whose training has started but not ended."""
    if not folder.is_alive("run"):
        return f"killed at about step {step}; rerun the same command to continue"
    state = next((event.state for event in reversed(events) if event.state), "running")
    hold = next((one for one in reversed(events) if isinstance(one, StateChanged) and one.state == "held"), None)
    if state == "held" and hold is not None and hold.until is not None:
        return f"held in process at step {step} until {hold.until:%Y-%m-%d %H:%M} UTC"
    return f"{state}, at step {step}"
