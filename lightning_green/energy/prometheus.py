"""A wall meter, a PDU or a BMC whose exporter writes to Prometheus."""

from __future__ import annotations

from datetime import timedelta

from typing_extensions import override

from lightning_green.energy.meter import Component
from lightning_green.energy.wall import Unit, WallMeter
from lightning_green.grid.providers.prometheus import parse_result
from lightning_green.utilities.http.errors import ServiceError
from lightning_green.utilities.http.transport import Transport


class PrometheusMeter(WallMeter):
    """Power or energy of the node from a Prometheus server. The query has to give one series.

    Args:
        url: Address of the server, without ``/api/v1``; see :class:`~lightning_green.energy.WallMeter`.
        query: PromQL that gives the number for this node.
        unit: Its unit.
        component: What the number stands for.
        every: Time between two samples; no shorter than the server scrapes.
        token_file: A file that holds the token.

    Raises:
        ValueError: If an argument cannot be read.

    Example::

        PrometheusMeter("http://prometheus:9090", 'ipmi_power_watts{instance="node7"}')

    """

    name = "Prometheus"

    def __init__(
        self,
        url: str,
        query: str,
        unit: Unit = "W",
        component: Component = "other",
        every: str | timedelta = "15s",
        token_file: str | None = None,
    ) -> None:
        if not isinstance(query, str) or not query.strip():
            raise ValueError(f"`query` should be a PromQL expression, got {query!r}.")
        self.query = query
        super().__init__(url, unit, component, every, token_file)

    @override
    def _ask(self, transport: Transport, headers: dict[str, str]) -> float | None:
        body = transport.get(f"{self.url}/api/v1/query", {"query": self.query}, headers).body
        return instant_value(body)


def instant_value(body: object) -> float | None:
    """Return the one value of an instant query; None where the series has none now.

    Raises:
        ServiceError: If the answer is no success, or gives several series.

    """
    try:
        parse_result(body)  # says what is wrong with an answer
    except ServiceError as error:
        if "series" in str(error) or "success" in str(error):
            raise
    data = body.get("data", {}) if isinstance(body, dict) else {}
    result = data.get("result") if isinstance(data, dict) else None
    sample = result[0].get("value") if isinstance(result, list) and result and isinstance(result[0], dict) else None
    try:
        return float(sample[1]) if isinstance(sample, list) and len(sample) == 2 else None
    except (TypeError, ValueError):
        return None
