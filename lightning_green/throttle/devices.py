"""The devices that set the levels of a throttle."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from lightning_green.planning.job import Level
from lightning_green.throttle.actuator import Actuator
from lightning_green.throttle.settings import Setting

log = logging.getLogger(__name__)


class LevelDevices:
    """Map the names of levels to settings of actuators and apply them. At most one actuator is changed at a time.

    Args:
        actuators: Actuators, in order of preference.
        why_shared: Function that returns why the devices should not be changed now, or None; None for no such check.

    """

    def __init__(self, actuators: Sequence[Actuator], why_shared: Callable[[], str | None] | None = None) -> None:
        self.actuators = list(actuators)
        self._why_shared = why_shared
        self._shared: str | None = None
        self._settings: dict[str, tuple[Actuator, Setting]] = {}

    @property
    def names(self) -> list[str]:
        """Names of the levels below full power that a device can set."""
        return list(self._settings)

    def add_level(self, level: Level) -> bool:
        """Add a stated level if an actuator has a setting for it. Return whether one has."""
        for actuator in self.actuators:
            setting = actuator.setting_for(level)
            if setting is not None:
                self._settings[str(level)] = (actuator, setting)
                return True
        return False

    def add_all(self) -> None:
        """Add the settings of all actuators as levels, named after the settings. The first actuator has precedence."""
        for actuator in self.actuators:
            for setting in actuator.levels()[1:]:
                self._settings.setdefault(setting.name, (actuator, setting))

    def restrict(self, names: Sequence[str]) -> None:
        """Remove all levels except ``names``, and use the order of ``names``."""
        self._settings = {name: self._settings[name] for name in names if name in self._settings}

    def apply(self, name: str) -> bool:
        """Set a level and return whether that succeeded. A name without a setting restores full power."""
        selected, setting = self._settings.get(name, (None, None))
        for actuator in self.actuators:
            if actuator is not selected:
                actuator.restore()
        if selected is None or setting is None:
            return True
        if self._is_shared():
            selected.restore()
            return False
        return selected.set(setting)

    def _is_shared(self) -> bool:
        """Return whether another user has started to use the devices, and log the beginning of that."""
        before, self._shared = self._shared, None if self._why_shared is None else self._why_shared()
        if self._shared is not None and before is None:
            log.warning("The training runs at full power while %s.", self._shared)
        return self._shared is not None

    def restore(self) -> None:
        """Restore the original state of all devices."""
        for actuator in self.actuators:
            actuator.restore()

    def describe(self) -> list[str]:
        """Return descriptions of the devices that set a level.

        Raises:
            ThrottleError: If a device cannot be read.

        """
        used = {id(actuator): actuator for actuator, _ in self._settings.values()}.values()
        return [f"{actuator.kind}: {actuator.device()}" for actuator in used]
