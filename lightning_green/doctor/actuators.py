"""Actuators: what can be throttled. Nothing is written to a device."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_green.doctor.finding import Finding
from lightning_green.throttle.actuator import Actuator
from lightning_green.throttle.errors import ThrottleError
from lightning_green.throttle.registry import ACTUATORS, actuator_class

SECTION = "Throttling"
_FOR_GPUS = ("nvml-", "zeusd-")


def examine_actuators(has_gpu: bool) -> Iterator[Finding]:
    """Yield whether each actuator can be used, without writing to a device.

    Args:
        has_gpu: Whether the job has a GPU; actuators of GPUs are skipped otherwise.

    """
    for name in ACTUATORS:
        if name.startswith(_FOR_GPUS) and not has_gpu:
            continue
        try:
            actuator = actuator_class(name)()
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            yield Finding(SECTION, name, "no", f"cannot be loaded ({error})", "fix or uninstall its package")
            continue
        yield examine_actuator(name, actuator)
    if not has_gpu:
        yield Finding(SECTION, "GPU actuators", "ok", "not examined, because the job has no GPU")


def examine_actuator(name: str, actuator: Actuator) -> Finding:
    """Return whether an actuator can be used, without writing to its device."""
    try:
        state = actuator.read_state()
        offered = actuator.offer_settings(state)
        obstacle = actuator.find_obstacle(state)
    except (ThrottleError, OSError, ValueError, LookupError) as error:
        reason, _, remedy = str(error).partition("; ")
        return Finding(SECTION, name, "no", reason, remedy or "use another actuator; see docs/throttling.md")
    if len(offered) < 2:
        text = f"{actuator.kind} has no setting below the present one"
        return Finding(SECTION, name, "no", text, "state settings; see docs/throttling.md")
    names = f"{offered[1].name} to {offered[-1].name}" if len(offered) > 2 else offered[1].name
    if obstacle is not None:
        reason, _, remedy = obstacle.partition("; ")
        return Finding(SECTION, name, "no", f"could set {names}, but {reason}", remedy or None)
    if type(actuator).find_obstacle is Actuator.find_obstacle:
        text = f"could set {names}; whether this process has the permission is unknown before a training"
        return Finding(SECTION, name, "limited", text, f'try it in a short training: throttle="{name}"')
    return Finding(SECTION, name, "ok", f"can set {names}; now {offered[0].name}")
