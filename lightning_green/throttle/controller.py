"""The throttle of a run: finds the levels, profiles them, and sets the selected one."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from enum import Enum
from functools import partial
from pathlib import Path

from lightning_green.energy.meter import Meter
from lightning_green.planning.job import Level
from lightning_green.throttle.devices import LevelDevices
from lightning_green.throttle.errors import ThrottleError
from lightning_green.throttle.profile import ThrottleProfile, least_energy
from lightning_green.throttle.profile_cache import ProfileCache
from lightning_green.throttle.request import FULL, ThrottleLike, parse_throttle
from lightning_green.throttle.restore import restore_left_over
from lightning_green.throttle.selection import select_actuator
from lightning_green.throttle.sharing import describe_other_users
from lightning_green.utilities.validation import check_number

log = logging.getLogger(__name__)

_FULL_NAME = "full"
_SEE_DOCS = "See docs/throttling.md for the permissions that each device requires."


class ThrottleState(Enum):
    """State of a ``ThrottleController``.

    ``UNAVAILABLE`` until ``ThrottleController.start``. Then ``DONE`` with stated levels, or ``READY`` and, from
    ``ThrottleController.begin_profiling``, ``PROFILING`` and ``DONE``. A drift of the step time leads from
    ``DONE`` back to ``PROFILING``.
    """

    UNAVAILABLE = "unavailable"
    """No level below full power can be set."""
    READY = "ready"
    """Levels can be set, but their power and speed are not known."""
    PROFILING = "profiling"
    """Levels are being measured, so none can be selected."""
    DONE = "done"
    """Levels are known, so one can be selected."""


class ThrottleController:
    """Offer levels to the planner and set the selected one.

    Stated levels are offered as they are. Other levels are measured during the first training steps.

    Args:
        throttle: The ``throttle=`` argument; see ``parse_throttle``.
        max_slowdown: Largest ratio of the step time at a measured level to that at full power, at least 1.

    Raises:
        TypeError: If ``throttle`` has an unsupported type.
        ValueError: If an argument is out of its range.

    Examples:
        ```python
        controller = ThrottleController("auto", max_slowdown=1.15)
        controller.start(run_dir, meter, "resnet50", on_gpu=True)
        controller.begin_profiling(run_seconds=36_000)
        controller.on_step(0.21)  # after each training step
        controller.choose()  # once the state is DONE
        ```

    """

    def __init__(self, throttle: ThrottleLike, max_slowdown: float = 1.15) -> None:
        self.request = parse_throttle(throttle)
        self.max_slowdown = check_number("max_slowdown", max_slowdown, 1.0)
        self.devices = LevelDevices(self.request.actuators)
        self.state = ThrottleState.UNAVAILABLE
        self.level = FULL
        self.why_not: str | None = None
        self.profile: ThrottleProfile | None = None
        self.cache: ProfileCache | None = None
        self._stated: dict[str, Level] = {}
        self._not_set: set[str] = set()  # levels that were measured while the device was not changed
        self._name = _FULL_NAME
        self._meter: Meter | None = None
        self._model = ""

    def start(
        self,
        run_dir: Path | None,
        meter: Meter | None,
        model: str,
        on_gpu: bool,
        simulated: bool = False,
        gpus: Sequence[str] | None = None,
        node: str = "",
    ) -> None:
        """Find the levels that this process can set. Restores devices that a killed process left throttled.

        Args:
            run_dir: Run directory; None to record no original states.
            meter: Meter of the energy.
            model: Description of the model and its data, for the cache of profiles.
            on_gpu: Whether the training runs on a GPU.
            simulated: Whether time and power are simulated, so that stated levels need no device.
            gpus: NVML indices or UUIDs of the GPUs of the job on this node.
            node: Number of this node in a run with several nodes.

        """
        self._meter, self._model = meter, model
        if run_dir is not None:
            for message in restore_left_over(run_dir, node):
                log.warning("%s", message)
        if self.request.auto and not simulated:
            why_shared = partial(describe_other_users, gpus) if on_gpu else None
            self.why_not = None if why_shared is None else why_shared()
            if self.why_not is not None:
                self.devices, self.state = LevelDevices([]), ThrottleState.UNAVAILABLE
                log.warning("Throttling is not used: %s. Name an actuator to change the GPU anyway.", self.why_not)
                return
            actuator = select_actuator(on_gpu, gpus, self.request.levels)
            self.devices = LevelDevices([] if actuator is None else [actuator], why_shared)
        else:
            for actuator in self.devices.actuators:
                actuator.prepare(gpus, self.request.levels)
        for actuator in self.devices.actuators:
            actuator.bind(run_dir, node)
        if self.request.levels:
            self._offer_stated(simulated)
        else:
            self._offer_settings()

    @property
    def names(self) -> list[str]:
        """Names of the levels below full power that this process can set."""
        return list(self._stated) if self.request.levels else self.devices.names

    def restrict(self, names: Sequence[str]) -> None:
        """Offer only the levels that all nodes of the training can set, in the order of ``names``."""
        missing = [name for name in self.names if name not in names]
        if not missing:
            return
        self.why_not = f"another node cannot set {', '.join(missing)}"
        log.warning("Some throttle levels are not used: %s.", self.why_not)
        self.devices.restrict(names)
        self._stated = {name: self._stated[name] for name in names if name in self._stated}
        if not self.names:
            self.state = ThrottleState.UNAVAILABLE

    @property
    def level_number(self) -> int:
        """Number of the current level: 0 for full power, then the position in ``names`` from 1."""
        return [_FULL_NAME, *self.names].index(self._name)

    def set_level_number(self, number: int) -> bool:
        """Set the level with a number as in ``level_number`` and return whether that succeeded."""
        return self.devices.apply([_FULL_NAME, *self.names][number])

    def begin_profiling(self, run_seconds: float) -> None:
        """Start to measure the levels, or load the measurements of an earlier run. Has an effect in ``READY`` only.

        Args:
            run_seconds: Expected duration of the run in s.

        """
        if self.state is not ThrottleState.READY:
            return
        self.profile = ThrottleProfile([_FULL_NAME, *self.names], run_seconds)
        try:
            self.cache = ProfileCache(self.devices.describe(), self._model, self.names)
        except ThrottleError as error:
            log.warning("The throttle levels are measured without a cache: %s", error)
        if self.cache is not None and self.cache.load(self.profile):
            self.state = ThrottleState.DONE
        else:
            self.state = ThrottleState.PROFILING

    def on_step(self, seconds: float) -> bool:
        """Add a training step of ``seconds`` and return whether it completed the profile."""
        if self.profile is None:
            return False
        name = self.profile.on_step(seconds, partial(_read_measured_joules, self._meter))
        if name is not None and self.devices.apply(name):
            self._not_set.discard(name)
        elif name is not None:
            self._not_set.add(name)  # the measurements are those of full power
            self.cache = None
        was_profiling = self.state is ThrottleState.PROFILING
        self.state = ThrottleState.DONE if self.profile.measuring is None else ThrottleState.PROFILING
        completed = was_profiling and self.state is ThrottleState.DONE
        if completed:
            self._finish_profile()
        return completed

    def discard_block(self) -> None:
        """Discard the current block of steps, because something other than a training step used time or energy."""
        if self.profile is not None:
            self.profile.discard_block()

    def levels(self) -> tuple[Level, ...]:
        """Return the levels for the planner: full power, then the stated levels or the fast enough measured levels."""
        if self.request.levels:
            return (FULL, *self._stated.values())
        known = self._measured_levels()
        allowed = [level for level in known.values() if level.speed * self.max_slowdown >= 1.0 - 1e-9]
        return (FULL, *(level for level in dict.fromkeys(allowed) if level != FULL))

    def choose(self, level: Level | None = None) -> Level:
        """Set a level and return the level that is set. Has an effect in ``DONE`` only.

        Args:
            level: Level that the planner selected; None for the level with the least energy per step.

        """
        if self.state is not ThrottleState.DONE:
            return self.level
        known, slowest = {_FULL_NAME: FULL, **self._stated}, math.inf
        if self.profile is not None:
            known, slowest = self._measured_levels(), self.max_slowdown
        if level is None:
            name = least_energy(known, slowest)
        else:
            name = next((name for name, point in known.items() if point == level), _FULL_NAME)
        self._name = name if self.devices.apply(name) else _FULL_NAME
        self.level = known[self._name]
        if self.profile is not None:
            self.profile.set_current(self._name)
        return self.level

    def _measured_levels(self) -> dict[str, Level]:
        """Return the measured levels that were set while they were measured."""
        found = {} if self.profile is None else self.profile.levels()
        return {name: level for name, level in found.items() if name not in self._not_set}

    def restore(self) -> None:
        """Restore the original state of all devices."""
        self.devices.restore()
        self.level, self._name = FULL, _FULL_NAME
        if self.profile is not None and self.state is ThrottleState.DONE:
            self.profile.set_current(_FULL_NAME)

    def _offer_stated(self, simulated: bool) -> None:
        """Offer each stated level that a device can set."""
        missing = []
        for level in self.request.levels:
            if self.devices.add_level(level) or (simulated and not self.devices.actuators):
                self._stated[str(level)] = level
            else:
                missing.append(str(level))
        if self._stated:
            self.state = ThrottleState.DONE
        if missing:
            self.why_not = f"no device can be set to {', '.join(missing)} (power:speed) by this process"
            log.warning("Some stated throttle levels are not used: %s. %s", self.why_not, _SEE_DOCS)

    def _offer_settings(self) -> None:
        """Offer all settings of the devices."""
        self.devices.add_all()
        if self.names:
            self.state = ThrottleState.READY
            return
        self.why_not = "this process may not change the power of any device"
        if self.request.auto:
            log.warning("Throttling is not possible: %s. %s", self.why_not, _SEE_DOCS)

    def _finish_profile(self) -> None:
        assert self.profile is not None
        if len(self.profile.levels()) == 1 and self.levels() == (FULL,):
            with_power = [point for point in self.profile.points.values() if point.watts is not None]
            self.why_not = (
                "no level saves energy" if len(with_power) > 1 else "the power of the levels could not be measured"
            )
        if self.cache is not None and self.profile.points:
            self.cache.save(self.profile)


def _read_measured_joules(meter: Meter | None) -> float | None:
    """Return the energy so far in J, or None if a part of it is not measured."""
    if meter is None:
        return None
    meter.sample()
    energies = meter.read().values()
    if not energies or any(energy.quality != "measured" for energy in energies):
        return None
    return sum(energy.joules for energy in energies)
