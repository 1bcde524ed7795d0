"""A meter that measures nothing."""

from __future__ import annotations

from typing_extensions import override

from lightning_green.energy.meter import Component, Energy, Meter


class NoMeter(Meter):
    """Measure nothing. The run has no energy and no emissions."""

    name = "none"

    @override
    def start(self) -> None:
        pass

    @override
    def read(self) -> dict[Component, Energy]:
        return {}

    @override
    def close(self) -> None:
        pass

    @override
    def describe(self) -> str:
        return "none: no energy, no emissions"
