"""The throttle of a run: its actuators, its profile, and the level that it is at."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_green.energy.meter import Meter
from lightning_green.planning.job import Level
from lightning_green.throttle.actuator import Actuator, Setting
from lightning_green.throttle.profile import ThrottleProfile, least_energy
from lightning_green.throttle.request import FULL, ThrottleLike, parse_throttle
from lightning_green.utilities.files import write_json

log = logging.getLogger(__name__)


def check_slowdown(value: float) -> None:
    """Raise a ValueError where ``value`` cannot be a ``max_slowdown``."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 1.0 <= value < math.inf:
        raise ValueError(f"`max_slowdown` should be a number of 1 or more, got {value!r}.")


class ThrottleControl:
    """Offers levels to the planner, and sets the one that was chosen.

    Levels that the user states are offered as they are; the others are measured first.

    Args:
        throttle: What the user asks for; see :func:`~lightning_green.throttle.request.parse_throttle`.
        max_slowdown: How many times longer a step may take at a level that was measured, at least 1.

    Raises:
        TypeError: If ``throttle`` is of another type.
        ValueError: If an argument is out of its range.

    """

    def __init__(self, throttle: ThrottleLike, max_slowdown: float = 1.15) -> None:
        check_slowdown(max_slowdown)
        request = parse_throttle(throttle)
        self.auto, self.stated = request.auto, request.levels
        self.max_slowdown = float(max_slowdown)
        self.actuators: list[Actuator] = list(request.actuators)
        self.profile: ThrottleProfile | None = None
        self.level, self._name, self._model = FULL, "full", ""
        self.why_not: str | None = None
        self._offered: dict[str, Level] = {}
        self._settings: dict[str, tuple[Actuator, Setting]] = {}
        self._cache: Path | None = None
        self._meter: Meter | None = None

    def start(
        self,
        run_dir: Path | None,
        meter: Meter,
        model: str,
        on_gpu: bool,
        modelled: bool = False,
        gpus: Sequence[str] | None = None,
        ranks: int = 1,
        node: str = "",
    ) -> None:
        """Find out which levels this process may set.

        Args:
            run_dir: The run's folder.
            meter: What sees the energy.
            model: What identifies the model and its data, for the cache.
            on_gpu: Whether the training runs on a GPU.
            modelled: Whether time and power are computed, so that stated levels hold without a device.
            gpus: The GPUs of this node that the job uses.
            ranks: How many processes train; with several, what changes this one alone is left out.
            node: What tells this node from others whose machine has the same name.

        """
        self._meter = meter
        fractions = {"power": [level.power for level in self.stated], "speed": [level.speed for level in self.stated]}
        if self.auto and not modelled:
            self.actuators = _first_that_works(on_gpu, gpus, fractions if self.stated else None)
        for actuator in [one for one in self.actuators if ranks > 1 and not one.survives]:
            self.actuators.remove(actuator)
            log.warning("The %s is not used: it would change one of several ranks alone.", actuator.kind)
        for actuator in self.actuators:
            actuator.bind(run_dir, node)
            if gpus is not None:
                actuator.bind_gpus(gpus)
            if self.stated and actuator.scale is not None:
                actuator.fractions = fractions[actuator.scale]
        if self.stated:
            self._offer_stated(modelled)
            return
        for actuator in self.actuators:
            for setting in actuator.levels()[1:]:
                self._settings[setting.name] = (actuator, setting)
        if not self._settings:
            self.why_not = "no device lets this process set anything"
            if self.auto:
                log.warning(
                    "There is no throttling: %s. The documentation says which permission each needs.", self.why_not
                )
        self._model = model
        self._cache = self._cache_file()

    def _cache_file(self) -> Path:
        used = {id(actuator): actuator for actuator, _ in self._settings.values()}.values()
        devices = sorted(f"{actuator.kind}: {actuator.device()}" for actuator in used)
        key = json.dumps([devices, self._model, sorted(self._settings)])
        return cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.json"

    def names(self) -> list[str]:
        """Return the names of the levels below full that this process may set."""
        return list(self._settings or self._offered)

    def keep(self, names: Sequence[str]) -> None:
        """Offer no other levels than these: those that every node of the training may set, in the same order on all."""
        lost = [name for name in self.names() if name not in names]
        if not lost:
            return
        self.why_not = f"another node does not let {', '.join(lost)} be set"
        log.warning("There is no throttling at a level that only some of the nodes offer: %s.", self.why_not)
        self._settings = {name: self._settings[name] for name in names if name in self._settings}
        self._offered = {name: self._offered[name] for name in names if name in self._offered}
        self._cache = self._cache_file()

    def go_to(self, number: int) -> bool:
        """Set the level below full of that number, from 1, or full power for 0; return whether it took."""
        return self._go_to(["full", *self.names()][number])

    @property
    def number(self) -> int:
        """Number of the present level, as :meth:`go_to` takes it."""
        return ["full", *self.names()].index(self._name)

    def _offer_stated(self, modelled: bool) -> None:
        """Offer each level that was stated and that a device can be set to."""
        missing = []
        for level in self.stated:
            found = [(actuator, setting) for actuator in self.actuators if (setting := actuator.setting_for(level))]
            if found:
                self._settings[str(level)] = found[0]
            if found or (modelled and not self.actuators):
                self._offered[str(level)] = level
            else:
                missing.append(str(level))
        if missing:
            self.why_not = f"no device lets this process set {', '.join(missing)} (power:speed)"
            log.warning(
                "There is no throttling at a level that was stated: %s. The documentation says which permission each "
                "device needs.",
                self.why_not,
            )

    def plan_for(self, run_seconds: float) -> None:
        """Begin to measure, or take what an earlier run measured; once the length of the run is known."""
        if self.profile is not None or self.stated or not self._settings:
            return
        self.profile = ThrottleProfile(["full", *self._settings], run_seconds)
        try:
            assert self._cache is not None
            self.profile.load(json.loads(self._cache.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return  # nothing there, or nothing to be read: it is measured

    def on_step(self, seconds: float) -> bool:
        """A training batch took ``seconds``. Return whether the levels have just become known."""
        if self.profile is None:
            return False
        before = self.profile.measuring
        wanted = self.profile.on_step(seconds, self._joules)
        if wanted is not None:
            self._go_to(wanted)
        done = before is not None and self.profile.measuring is None
        if done:
            self._keep()
        return done

    def disturbed(self) -> None:
        """What is drawn now is not that of training steps alone."""
        if self.profile is not None:
            self.profile.disturbed()

    @property
    def can_set(self) -> bool:
        """Whether there is any level below full, known or to be measured."""
        return bool(self._settings or self._offered)

    @property
    def measuring(self) -> bool:
        """Whether levels are being measured, so that none is to be chosen."""
        return self.profile is not None and self.profile.measuring is not None

    @property
    def knows(self) -> bool:
        """Whether the levels are known, so that one can be chosen."""
        return bool(self._offered) or (self.profile is not None and self.profile.measuring is None)

    def levels(self) -> tuple[Level, ...]:
        """Return the levels for the planner: full first, then those that were stated or are within ``max_slowdown``."""
        if self.stated:
            return (FULL, *self._offered.values())
        known = {} if self.profile is None else self.profile.levels()
        slower = [level for level in known.values() if level.speed * self.max_slowdown >= 1.0 - 1e-9]
        return (FULL, *(level for level in dict.fromkeys(slower) if level != FULL))

    def choose(self, level: Level | None = None) -> Level:
        """Set the level that the planner chose, or the one of least energy per step; return the one that is set."""
        if not self.knows:
            return self.level
        known, slowest = {"full": FULL, **self._offered}, math.inf
        if self.profile is not None:
            known, slowest = self.profile.levels(), self.max_slowdown
        if level is None:
            name = least_energy(known, slowest)
        else:
            name = next((name for name, point in known.items() if point == level), "full")
        self._name = name if self._go_to(name) else "full"
        self.level = known[self._name]
        if self.profile is not None:
            self.profile.at(self._name)
        return self.level

    def restore(self) -> None:
        """Bring every device back to the state in which it was found."""
        for actuator in self.actuators:
            actuator.restore()
        self.level, self._name = FULL, "full"
        if self.profile is not None and not self.measuring:
            self.profile.at("full")

    def _go_to(self, name: str) -> bool:
        chosen = self._settings.get(name)
        for actuator in self.actuators:
            if chosen is None or actuator is not chosen[0]:
                actuator.restore()
        return True if chosen is None else chosen[0].set(chosen[1])

    def _joules(self) -> float | None:
        assert self._meter is not None
        self._meter.sample()
        energies = self._meter.read().values()
        if not energies or any(energy.quality != "measured" for energy in energies):
            return None
        return sum(energy.joules for energy in energies)

    def _keep(self) -> None:
        assert self.profile is not None
        if len(self.profile.levels()) == 1 and self.levels() == (FULL,):
            known = [point for point in self.profile.points.values() if point.watts is not None]
            self.why_not = (
                "no level saves energy" if len(known) > 1 else "the power of the levels could not be measured"
            )
        if self._cache is not None and self.profile.points:
            try:
                self._cache.parent.mkdir(parents=True, exist_ok=True)
                write_json(self._cache, self.profile.state())
            except OSError as error:
                log.warning("The measured throttle levels could not be kept (%s); the next run measures again.", error)


def cache_folder() -> Path:
    """Return where measured levels are kept: ``LIGHTNING_GREEN_CACHE_DIR``, or the user's cache."""
    given = os.environ.get("LIGHTNING_GREEN_CACHE_DIR")
    base = (
        Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lightning-green"
    )
    return base / "throttle"


def _first_that_works(
    on_gpu: bool, gpus: Sequence[str] | None, fractions: dict[str, list[float]] | None
) -> list[Actuator]:
    """Return the actuator that lowers the energy of a step best, of those that this process may use.

    Args:
        on_gpu: Whether the training runs on a GPU.
        gpus: The GPUs of this node that the job uses.
        fractions: Fractions of full power and of full speed that it has to offer; None for any.

    """
    from lightning_green.throttle.actuators.cpu_governor import CpuGovernor
    from lightning_green.throttle.actuators.nvml_locked_clocks import NvmlLockedClocks
    from lightning_green.throttle.actuators.nvml_power_limit import NvmlPowerLimit
    from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
    from lightning_green.throttle.actuators.zeusd_power_limit import ZeusdPowerLimit

    candidates: list[Any] = (
        [NvmlPowerLimit, ZeusdPowerLimit, NvmlLockedClocks] if on_gpu else [RaplPowerLimit, CpuGovernor]
    )
    for make in candidates:
        actuator: Actuator = make()
        actuator.quiet = True
        if gpus is not None:
            actuator.bind_gpus(gpus)
        if fractions is not None:
            if actuator.scale is None:
                continue
            actuator.fractions = fractions[actuator.scale]
        if len(actuator.levels()) > 1:
            return [actuator]
    return []


def describe_model(module: Any) -> str:
    """Return what tells one model from another for the cache: its class and its parameters' shapes."""
    shapes = [(name, list(parameter.shape)) for name, parameter in module.named_parameters()]
    return f"{type(module).__qualname__} {hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]}"
