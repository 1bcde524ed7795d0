"""A wall meter or a BMC that answers with JSON."""

from __future__ import annotations

from datetime import timedelta

from typing_extensions import override

from lightning_green.energy.meter import Component
from lightning_green.energy.wall import Unit, WallMeter
from lightning_green.grid.providers.http_json import at_path
from lightning_green.utilities.http.transport import Transport


class HttpJsonMeter(WallMeter):
    """Power or energy of the node from an address that answers with JSON, such as a plug, a PDU or Redfish.

    Args:
        url: Address; see :class:`~lightning_green.energy.WallMeter`.
        value: Path of the number: keys and positions joined by dots.
        unit: Its unit.
        component: What the number stands for.
        every: Time between two samples.
        token_file: A file that holds the token.

    Raises:
        ValueError: If an argument cannot be read.

    Example::

        HttpJsonMeter("https://bmc/redfish/v1/Chassis/1/Power", value="PowerControl.0.PowerConsumedWatts")

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
    def _ask(self, transport: Transport, headers: dict[str, str]) -> float | None:
        return _number(at_path(transport.get(self.url, headers=headers).body, self.value))


def _number(raw: object) -> float | None:
    """Return a JSON number, or one that was written as a string; None for anything else."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        return None
    try:
        return float(raw)
    except (ValueError, OverflowError):
        return None
