"""What a throttle is."""

from __future__ import annotations

import atexit
import logging
import platform
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning_green.planning.job import Level
from lightning_green.throttle.errors import ThrottleError
from lightning_green.throttle.journal import Journal, restore_left_over

log = logging.getLogger(__name__)

Scale = Literal["power", "speed"] | None
FRACTIONS = (0.9, 0.8, 0.7, 0.6, 0.5)
NEAR = 0.02
"""How far a setting may lie from what somebody stated, as a fraction of the present one."""


@dataclass(frozen=True)
class Setting:
    """One level of an actuator.

    Args:
        name: What people read, such as ``"250 W"``.
        value: What the actuator is set to, in its own unit.

    """

    name: str
    value: float | str


class Actuator(ABC):
    """Something that lets a device draw less power.

    The contract: :meth:`levels` names the present state first and then what may be set, from more power to less, and is
    empty where this process lacks the permission, after one warning that says how to get it. :meth:`set` takes one of
    them. :meth:`restore` brings back the state that was found before the first change, not the maximum; it may be
    called at any time and more than once. That state is written into the run's folder before the first change, so that
    :func:`~lightning_green.throttle.journal.restore_left_over` can bring it back after a ``kill -9``.

    A subclass reads and writes a state (JSON) and turns a setting into one; it raises :class:`ThrottleError` or
    ``OSError`` where that fails.

    Attributes:
        kind: Its name in the journal.
        survives: Whether what it sets outlives the process.
        scale: What a fraction of the present setting is a fraction of, power or speed; None where a setting is no
            number.
        fractions: Fractions of the present setting to offer where no values were asked for.
        problem: One sentence about the last failure, or None.
        quiet: Whether a missing permission is no warning, because something else may do.

    """

    kind: ClassVar[str]
    survives: ClassVar[bool] = True
    scale: ClassVar[Scale] = None

    def __init__(self) -> None:
        self.fractions: Sequence[float] = FRACTIONS
        self.problem: str | None = None
        self.quiet = False
        self._found: dict[str, Any] | None = None
        self._journal: Journal | None = None
        self._offered: tuple[Setting, ...] | None = None

    # -- what a subclass does ---------------------------------------------------------------------------------------

    @abstractmethod
    def _read(self) -> dict[str, Any]:
        """Return the present state."""

    @abstractmethod
    def _write(self, state: dict[str, Any]) -> None:
        """Bring a state about that :meth:`_read` returned."""

    @abstractmethod
    def _offer(self, state: dict[str, Any]) -> Sequence[Setting]:
        """Return the present setting and what may be set, from more power to less, without trying any of it."""

    @abstractmethod
    def _apply(self, setting: Setting, state: dict[str, Any]) -> None:
        """Set a level. ``state`` is what was found before the first change."""

    def _probe(self, state: dict[str, Any]) -> None:
        """Raise where this process may not set anything; writes what is there already."""
        self._write(state)

    def arguments(self) -> dict[str, Any]:
        """Return what another process needs to build this actuator again, as JSON."""
        return {}

    def device(self) -> str:
        """Return what is throttled, so that what was measured on one device is not taken for another."""
        return platform.node()

    # -- the contract -----------------------------------------------------------------------------------------------

    def bind(self, run_dir: Path | None, node: str = "") -> None:
        """Keep what was found in ``run_dir``, and bring back what a killed process left there first.

        Args:
            run_dir: The run's folder.
            node: Number of this node, where the run has several.

        """
        if run_dir is not None and self.survives:
            self._journal = Journal(run_dir, node)
            for line in restore_left_over(run_dir, node):
                log.warning("%s", line)

    def bind_gpus(self, gpus: Sequence[str]) -> None:  # noqa: B027  (a hook)
        """Say which GPUs of this node the job uses, before :meth:`levels`; for an actuator of GPUs that names none."""

    def levels(self) -> tuple[Setting, ...]:
        """Return the present setting and those that may be set, from more power to less; empty where none may."""
        if self._offered is None:
            try:
                state = self._read()
                offered = tuple(self._offer(state))
                self._probe(state)
            except (ThrottleError, OSError) as error:
                offered = ()
                self.problem = f"{self.kind} is not used for throttling: {error}"
                log.log(logging.INFO if self.quiet else logging.WARNING, "%s", self.problem)
            self._offered = offered
        return self._offered

    def setting_for(self, level: Level) -> Setting | None:
        """Return the setting that stands for an operating point which somebody stated; None where there is none.

        Its power (for clocks and times its speed) is taken as a fraction of the present setting. Where no values were
        asked for, :attr:`fractions` has to hold it before the first call of :meth:`levels`.
        """
        offered = self.levels()
        if self.scale is None or len(offered) < 2:
            return None
        wanted = level.power if self.scale == "power" else level.speed
        present = float(offered[0].value)
        nearest = min(offered[1:], key=lambda setting: abs(float(setting.value) / present - wanted))
        return nearest if abs(float(nearest.value) / present - wanted) <= NEAR else None

    def set(self, level: Setting) -> bool:
        """Set ``level``; return whether it took. The first of :meth:`levels` is the state that was found.

        Raises:
            ValueError: If ``level`` is none of :meth:`levels`.

        """
        if level not in self.levels():
            names = ", ".join(setting.name for setting in self.levels()) or "none"
            raise ValueError(f"`level` should be one of {names}, got {level!r}.")
        if level == self.levels()[0]:
            return self.restore()
        try:
            if self._found is None:
                found = self._read()
                if self._journal is not None:
                    self._journal.save(self.kind, self.arguments(), found)
                self._found = found
                _restore_at_exit(self)
            self._apply(level, self._found)
        except (ThrottleError, OSError) as error:
            self.problem = f"{self.kind} could not be set to {level.name}: {error}"
            log.warning("%s", self.problem)
            self.restore()
            return False
        return True

    def restore(self) -> bool:
        """Bring back what was found before the first change; return whether that is the state now."""
        if self._found is None:
            return True
        try:
            self._write(self._found)
        except (ThrottleError, OSError) as error:
            self.problem = f"{self.kind} could not be brought back to {self._found}: {error}"
            log.warning("%s", self.problem)
            return False
        if self._journal is not None:
            self._journal.forget(self.kind, self.arguments())
        self._found = None
        return True

    def on_step(self, seconds: float) -> None:  # noqa: B027  (a hook)
        """A training batch has taken ``seconds``; only the duty cycle does something with it."""


_changed: weakref.WeakSet[Actuator] = weakref.WeakSet()


def _restore_at_exit(actuator: Actuator) -> None:
    if not _changed:
        atexit.register(_restore_all)
    _changed.add(actuator)


def _restore_all() -> None:
    for actuator in list(_changed):
        actuator.restore()


def steps_below(present: float, lowest: float, fractions: Sequence[float] = FRACTIONS) -> list[float]:
    """Return ``fractions`` of ``present``, from more to less, those that are not below ``lowest``.

    Example::

        >>> steps_below(700.0, 400.0)
        [630.0, 560.0, 490.0, 420.0]

    """
    wanted = (round(present * fraction, 6) for fraction in sorted(fractions, reverse=True))
    return [value for value in wanted if value >= lowest]
