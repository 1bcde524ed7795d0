"""The energy of one fit, from a meter that consecutive fits of a process share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from typing_extensions import override

from lightning_green.energy.guarded import SAMPLE_SECONDS, GuardedMeter
from lightning_green.energy.meter import Component, Energy, Meter


class MeterSince(Meter):
    """Count the energy of a running meter from the call of ``start``.

    Args:
        meter: Running meter.

    Examples:
        ```python
        fit_meter = MeterSince(meter)
        fit_meter.start()
        fit_meter.read()  # energy since fit_meter.start()
        ```

    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._before: dict[Component, float] | None = None
        self._last: dict[Component, Energy] | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the running meter."""
        return self._meter.name

    @property
    def problem(self) -> str | None:  # type: ignore[override]
        """Description of the last failure of the running meter, or None."""
        return self._meter.problem

    @override
    def start(self) -> None:
        if self._before is not None:
            return
        self._meter.set_load(1.0)
        self._meter.sample()
        self._before = {component: energy.joules for component, energy in self._meter.read().items()}

    @override
    def read(self) -> dict[Component, Energy]:
        if self._last is not None:
            return self._last
        before = self._before or {}
        return {
            component: Energy(energy.joules - before.get(component, 0.0), energy.quality)
            for component, energy in self._meter.read().items()
        }

    def end(self) -> Meter:
        """Stop counting and return the running meter."""
        self._last = self.read()
        return self._meter

    @override
    def close(self) -> None:
        self.end().close()

    @override
    def sample(self, wait: float = SAMPLE_SECONDS) -> None:
        """Take a sample now and wait for it, for at most ``wait`` seconds if the meter is guarded."""
        if self._last is None:
            if isinstance(self._meter, GuardedMeter):
                self._meter.sample(wait)
            else:
                self._meter.sample()

    @override
    def bind_clock(self, time_source: Callable[[], float]) -> None:
        self._meter.bind_clock(time_source)

    @override
    def bind_gpus(self, gpus: Sequence[str]) -> None:
        self._meter.bind_gpus(gpus)

    @override
    def set_load(self, fraction: float) -> None:
        if self._last is None:
            self._meter.set_load(fraction)

    @override
    def describe(self) -> str:
        return self._meter.describe()
