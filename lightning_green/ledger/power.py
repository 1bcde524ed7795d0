"""Power and energy derived from totals: by phase, at full power, while held, for an exit."""

from __future__ import annotations

from statistics import fmean

from lightning_green.ledger.totals import PHASES, Totals
from lightning_green.utilities.units import JOULES_PER_KWH


def energy_kwh(totals: Totals, phase: str = "training", since_last: float = 0.0) -> dict[str, float]:
    """Return the energy in kWh by its names in the logs: in total, by component, and by phase.

    Args:
        totals: Totals up to the last event.
        phase: Phase that the fit is in.
        since_last: Energy since that event in J; it is in the total and in the phase, not in the components.

    """
    found = {"energy/kwh": sum(totals.joules.values()) + since_last}
    found.update({f"energy/{component}_kwh": joules for component, joules in totals.joules.items()})
    found.update({f"energy/{name}_kwh": totals.joules_by_phase.get(name, 0.0) for name in PHASES})
    found[f"energy/{phase}_kwh"] += since_last
    return {name: joules / JOULES_PER_KWH for name, joules in found.items()}


def full_power(totals: Totals) -> float | None:
    """Return the mean power of the training at full power in W, of all nodes.

    None if less than a second of training is recorded. A node without events is assumed to draw the mean of the others.
    """
    watts = [
        node.training_full_joules / node.training_seconds
        for number, node in totals.by_node.items()
        if number < totals.nodes and node.training_seconds >= 1.0
    ]
    return fmean(watts) * totals.nodes if sum(watts) > 0.0 else None


def measured_hold_power(totals: Totals) -> float | None:
    """Return the power while paused in process as a fraction of full power, if sensors measured both.

    None if a part of the power is modeled, or if either lasted less than a minute.
    """
    full = _measured_full_power(totals)
    watts = [
        node.held_joules / node.held_seconds
        for number, node in totals.by_node.items()
        if number < totals.nodes and node.held_seconds > 0.0
    ]
    if full is None or totals.seconds_by_state["held"] < 60.0 or not watts:
        return None
    return min(1.0, max(0.0, fmean(watts) * totals.nodes / full))


def measured_resume_hours(totals: Totals) -> float | None:
    """Return the energy of one exit and resume in hours at full power, if sensors measured at least one.

    It is the energy of the restarts after planned exits and of the states that were saved for them, divided by the
    number of exits.
    """
    full = _measured_full_power(totals)
    if full is None or totals.exits == 0 or totals.attempts < 2:
        return None
    return totals.exit_joules / full / 3600.0 / totals.exits


def _measured_full_power(totals: Totals) -> float | None:
    enough = totals.is_measured and totals.by_node[0].training_seconds >= 60.0
    return full_power(totals) if enough else None
