"""No meter."""

from __future__ import annotations

from typing_extensions import override

from lightning_green.energy.meter import Component, Energy, Meter


class NoMeter(Meter):
    """Measures nothing: there is no energy and there are no emissions, and nothing else changes."""

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
