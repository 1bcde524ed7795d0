"""A constant power."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import cast

from typing_extensions import override

from lightning_green.energy.meter import COMPONENTS, Component, Energy, Meter


class ConstantPowerMeter(Meter):
    """Model the energy as a stated power times the elapsed time. The quality is ``"modelled"``.

    Use this meter with the simulated clock, or if the power of the machine is known from a PDU or a data sheet.

    Args:
        watts: Full power of the job on this node, in W: one number (component ``other``), or a number for each
            component, such as ``{"gpu": 300, "cpu": 80}``.

    Raises:
        TypeError: If ``watts`` is neither a number nor a dict of numbers.
        ValueError: If a power is negative or not finite, or a component is unknown.

    Examples:
        ```python
        EmissionsTracker(meter=ConstantPowerMeter(400.0), grid=381.0)
        ```

    """

    name = "constant"

    def __init__(self, watts: float | dict[str, float]) -> None:
        powers = watts if isinstance(watts, dict) else {"other": watts}
        if not powers:
            raise ValueError("`watts` should name at least one component, got an empty dict.")
        for component, value in powers.items():
            if component not in COMPONENTS:
                raise ValueError(f"`watts` should have the components {', '.join(COMPONENTS)}, got {component!r}.")
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"`watts` should be a number of watts, or a dict of them, got {value!r}.")
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"`watts` should be finite and 0 or more, got {value!r}.")
        self.watts: dict[Component, float] = {cast("Component", name): float(value) for name, value in powers.items()}
        self._now: Callable[[], float] = time.monotonic
        self._full_power_seconds = 0.0
        self._load = 1.0
        self._since: float | None = None
        self._lock = threading.Lock()

    @override
    def start(self) -> None:
        with self._lock:
            if self._since is None:
                self._since = self._now()

    @override
    def read(self) -> dict[Component, Energy]:
        with self._lock:
            self._advance()
            seconds = self._full_power_seconds
        return {name: Energy(power * seconds, "modelled") for name, power in self.watts.items()}

    @override
    def close(self) -> None:
        with self._lock:
            self._advance()
            self._since = None

    @override
    def set_load(self, fraction: float) -> None:
        if not math.isfinite(fraction) or fraction < 0:
            raise ValueError(f"`fraction` should be a fraction of full power, 0 or more, got {fraction!r}.")
        with self._lock:
            self._advance()
            self._load = fraction

    @override
    def bind_clock(self, time_source: Callable[[], float]) -> None:
        with self._lock:
            self._advance()
            self._now = time_source
            if self._since is not None:
                self._since = time_source()

    @override
    def describe(self) -> str:
        powers = ", ".join(f"{name} {power:g} W" for name, power in self.watts.items())
        return f"constant power ({powers}), modelled"

    def __getstate__(self) -> dict[str, object]:
        state = self.__dict__.copy()
        # A lock and a clock belong to a process, so a copy starts from zero.
        state.update(_lock=None, _now=None, _since=None, _full_power_seconds=0.0)
        return state

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock, self._now = threading.Lock(), time.monotonic

    def _advance(self) -> None:
        if self._since is not None:
            now = self._now()
            self._full_power_seconds += self._load * max(0.0, now - self._since)
            self._since = now
