"""Energy of the node from an HTTP address with JSON, such as a power meter or a BMC."""

from __future__ import annotations

from datetime import timedelta

from typing_extensions import override

from lightning_green.energy.meter import Component
from lightning_green.energy.wall import Unit, WallMeter
from lightning_green.utilities.http.bodies import at_path
from lightning_green.utilities.http.transport import Transport


class HttpJsonMeter(WallMeter):
    """Measure the energy of the node at an HTTP address with JSON, such as a smart plug, a PDU or Redfish.

    A token in ``LIGHTNING_GREEN_METER_TOKEN`` or ``token_file`` is sent as ``Authorization: Bearer``.

    Args:
        url: Address without credentials.
        value: Path of the number in the response: keys and positions joined by dots.
        unit: ``"W"`` or ``"kW"`` for a power; ``"J"``, ``"Wh"`` or ``"kWh"`` for a cumulative energy.
        component: Component that the number measures; ``"other"`` for the whole node.
        every: Time between two samples, at least 0.1 s.
        token_file: File with the token; None for ``LIGHTNING_GREEN_METER_TOKEN``.

    Raises:
        ValueError: If an argument is invalid.

    Examples:
        ```python
        HttpJsonMeter("https://bmc/redfish/v1/Chassis/1/Power", value="PowerControl.0.PowerConsumedWatts")
        ```

    """

    name = "HTTP"

    def __init__(
        self,
        url: str,
        value: str,
        unit: Unit = "W",
        component: Component = "other",
        every: str | timedelta = "10s",
        token_file: str | None = None,
    ) -> None:
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"`value` should be a path such as 'data.0.power', got {value!r}.")
        self.value = value
        super().__init__(url, unit, component, every, token_file)

    @override
    def _fetch(self, transport: Transport, headers: dict[str, str]) -> float | None:
        return _number(at_path(transport.get(self.url, headers=headers).body, self.value))


def _number(raw: object) -> float | None:
    """Return a JSON number, or a number in a JSON string, as a float; None for anything else."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        return None
    try:
        return float(raw)
    except (ValueError, OverflowError):
        return None
