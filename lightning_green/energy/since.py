"""The energy of one fit, from a meter that several fits of a process use one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from typing_extensions import override

from lightning_green.energy.meter import Component, Energy, Meter


class MeterSince(Meter):
    """Counts from its own :meth:`start` what another meter, which is running already, has counted.

    Args:
        meter: The running meter.

    Example::

        fit_meter = MeterSince(meter)
        fit_meter.start()
        fit_meter.read()  # joules since that line

    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._before: dict[Component, float] = {}
        self._last: dict[Component, Energy] | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the meter."""
        return self._meter.name

    @property
    def problem(self) -> str | None:  # type: ignore[override]
        """One sentence about the last failure of the meter, or None."""
        return self._meter.problem

    @override
    def start(self) -> None:
        self._meter.set_load(1.0)
        self._meter.sample()
        self._before = {component: energy.joules for component, energy in self._meter.read().items()}

    @override
    def read(self) -> dict[Component, Energy]:
        if self._last is not None:
            return self._last
        return {
            component: Energy(energy.joules - self._before.get(component, 0.0), energy.quality)
            for component, energy in self._meter.read().items()
        }

    def end(self) -> Meter:
        """Stop counting, leave the other meter running, and return it."""
        self._last = self.read()
        return self._meter

    @override
    def close(self) -> None:
        self.end().close()

    @override
    def sample(self) -> None:
        if self._last is None:
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
