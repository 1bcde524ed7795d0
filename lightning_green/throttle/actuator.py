"""Base class of the actuators."""

from __future__ import annotations

import atexit
import logging
import platform
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning_green.planning.job import Level
from lightning_green.throttle.errors import ThrottleError
from lightning_green.throttle.journal import Journal
from lightning_green.throttle.settings import FRACTIONS, Setting

log = logging.getLogger(__name__)

Scale = Literal["power", "speed"] | None
TOLERANCE = 0.02
"""Largest distance between a setting and a stated level, as a fraction of the original setting."""


class Actuator(ABC):
    """Lowers the power of one kind of device and restores its original state.

    ``levels`` returns the original setting first, then the available settings from more to less power. It returns
    an empty tuple if this process lacks the permission, and logs one warning with the remedy. ``set`` applies one
    of these settings. ``restore`` brings back the original state, which is the state before the first change and
    not the maximum; it may be called at any time and more than once. The original state is written into the run
    directory before the first change, so that ``restore_left_over`` can restore it after
    a ``kill -9``.

    To add an actuator, implement ``read_state``, ``write_state``, ``offer_settings`` and
    ``apply_setting``, which raise ``ThrottleError`` or ``OSError`` on failure, and ``arguments``. Register the
    class in the entry point group ``lightning_green.actuators``.

    Attributes:
        kind: Display name, also in the journal. Registered name: ``kind`` in lower case with hyphens for spaces.
        auto_device: Kind of training device for which ``throttle="auto"`` tries this actuator; None for neither.
        scale: Quantity of a stated level that a setting is proportional to; None if settings are not numbers.
        fractions: Fractions of the original setting to offer if the user requests no values.
        problem: Description of the last failure, or None.
        quiet: Whether a missing permission is logged as information and not as a warning.

    Examples:
        ```python
        class MyPowerLimit(Actuator):
            kind = "my power limit"  # registered as "my-power-limit"
            scale = "power"

            def read_state(self):
                return {"watts": my_driver.power_limit()}

            def write_state(self, state):
                my_driver.set_power_limit(state["watts"])

            def offer_settings(self, state):
                return power_settings(state["watts"], 50.0, None, self.fractions)

            def apply_setting(self, setting, state):
                my_driver.set_power_limit(setting.value)
        ```

    """

    kind: ClassVar[str]
    auto_device: ClassVar[Literal["cpu", "gpu"] | None] = None
    scale: ClassVar[Scale] = None

    def __init__(self) -> None:
        self.fractions: Sequence[float] = FRACTIONS
        self.problem: str | None = None
        self.quiet = False
        self._original: dict[str, Any] | None = None
        self._journal: Journal | None = None
        self._offered: tuple[Setting, ...] | None = None
        self._own_fractions: Sequence[float] | None = None  # before levels were stated

    # -- implemented by a subclass ------------------------------------------------------------------------------------

    @abstractmethod
    def read_state(self) -> dict[str, Any]:
        """Return the current state of the device, as JSON."""

    @abstractmethod
    def write_state(self, state: dict[str, Any]) -> None:
        """Bring the device into a state that ``read_state`` returned."""

    @abstractmethod
    def offer_settings(self, state: dict[str, Any]) -> Sequence[Setting]:
        """Return the current setting and the available ones, from more to less power, without changing the device."""

    @abstractmethod
    def apply_setting(self, setting: Setting, state: dict[str, Any]) -> None:
        """Apply a setting.

        Args:
            setting: One of ``offer_settings``.
            state: Original state of the device.

        """

    def check_permission(self, state: dict[str, Any]) -> None:
        """Raise if this process may not change the device. By default, writes the current state back."""
        self.write_state(state)

    def find_obstacle(self, state: dict[str, Any]) -> str | None:
        """Return why this process may not change the device, without writing to it; None if it may.

        The text is the reason, ``"; "`` and the remedy. ``lightning-green doctor`` uses it. Without an implementation,
        it reports that the permission is unknown.

        Args:
            state: Current state of the device.

        """
        return None

    def prepare_change(self, state: dict[str, Any]) -> None:  # noqa: B027  (a hook)
        """Raise if the device should not be changed or could not be restored. Called before the first change.

        Args:
            state: Current state of the device.

        """

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments with which another process can restore the device, as JSON."""
        return {}

    @classmethod
    def from_journal(cls, arguments: dict[str, Any]) -> Actuator:
        """Return the actuator that restores a device from the journal of a killed process.

        The journal is in the run directory, which is untrusted input. Override this method if an argument names a file,
        a directory, a socket or an address: use the default of such an argument instead. For the same reason,
        ``write_state`` checks the state.

        Args:
            arguments: What ``arguments`` returned, or anything else.

        """
        return cls(**arguments)

    def device(self) -> str:
        """Return a description of the device, which is part of the key of cached profiles."""
        return platform.node()

    # -- contract -----------------------------------------------------------------------------------------------------

    def bind(self, run_dir: Path | None, node: str = "") -> None:
        """Record the original state in ``run_dir`` before the first change.

        Args:
            run_dir: Run directory; None to record nothing.
            node: Number of this node in a run with several nodes.

        """
        self._journal = None if run_dir is None else Journal(run_dir, node)

    def bind_gpus(self, gpus: Sequence[str]) -> None:  # noqa: B027  (a hook)
        """Restrict the actuator to the GPUs of the job, unless the user named GPUs. Call before ``levels``."""

    def prepare(self, gpus: Sequence[str] | None, levels: Sequence[Level]) -> None:
        """Prepare for a fit: an actuator object of the user may have the GPUs and settings of an earlier one.

        Args:
            gpus: NVML indices or UUIDs of the GPUs of the job on this node; None for ``CUDA_VISIBLE_DEVICES``.
            levels: Levels that the user states.

        """
        self._own_fractions = self.fractions if self._own_fractions is None else self._own_fractions
        self._offered, self.fractions = None, self._own_fractions
        if gpus is not None:
            self.bind_gpus(gpus)
        if levels:
            self.offer_levels(levels)

    def offer_levels(self, levels: Sequence[Level]) -> None:
        """Offer the settings of stated levels if the user requests no values. Call before ``levels``."""
        if self.scale is not None:
            self.fractions = [level.power if self.scale == "power" else level.speed for level in levels]

    def levels(self) -> tuple[Setting, ...]:
        """Return the original setting and the available ones, from more to less power; empty if there are none."""
        if self._offered is None:
            try:
                state = self.read_state()
                offered = tuple(self.offer_settings(state))
                self.check_permission(state)
            except (ThrottleError, OSError) as error:
                offered = ()
                self.problem = f"{self.kind} is not used for throttling: {error}"
                log.log(logging.INFO if self.quiet else logging.WARNING, "%s", self.problem)
            self._offered = offered
        return self._offered

    def setting_for(self, level: Level) -> Setting | None:
        """Return the setting for a stated level, or None if no setting is within ``TOLERANCE``.

        The setting is the power of the level (the speed, for clocks) times the original setting.
        """
        offered = self.levels()
        if self.scale is None or len(offered) < 2:
            return None
        fraction = level.power if self.scale == "power" else level.speed
        original = float(offered[0].value)
        nearest = min(offered[1:], key=lambda setting: abs(float(setting.value) / original - fraction))
        return nearest if abs(float(nearest.value) / original - fraction) <= TOLERANCE else None

    def set(self, level: Setting) -> bool:
        """Apply one of ``levels`` and return whether that succeeded. The first one restores the original state.

        Raises:
            ValueError: If ``level`` is not one of ``levels``.

        """
        if level not in self.levels():
            names = ", ".join(setting.name for setting in self.levels()) or "none"
            raise ValueError(f"`level` should be one of {names}, got {level!r}.")
        if level == self.levels()[0]:
            return self.restore()
        try:
            if self._original is None:
                original = self.read_state()
                self.prepare_change(original)
                if self._journal is not None:
                    self._journal.save(self.kind, self.arguments(), original)
                self._original = original
                _restore_at_exit(self)
            self.apply_setting(level, self._original)
        except (ThrottleError, OSError) as error:
            self.problem = f"{self.kind} could not be set to {level.name}: {error}"
            log.warning("%s", self.problem)
            self.restore()
            return False
        return True

    def restore(self) -> bool:
        """Restore the original state and return whether the device is in it."""
        if self._original is None:
            return True
        try:
            self.write_state(self._original)
        except (ThrottleError, OSError) as error:
            self.problem = f"{self.kind} could not be restored to {self._original}: {error}"
            log.warning("%s", self.problem)
            return False
        if self._journal is not None:
            self._journal.forget(self.kind, self.arguments())
        self._original = None
        return True


_changed: weakref.WeakSet[Actuator] = weakref.WeakSet()


def _restore_at_exit(actuator: Actuator) -> None:
    if not _changed:
        atexit.register(_restore_all)
    _changed.add(actuator)


def _restore_all() -> None:
    for actuator in list(_changed):
        actuator.restore()
