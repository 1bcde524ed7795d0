"""Energy of the node from a Prometheus server."""

from __future__ import annotations

from datetime import timedelta

from typing_extensions import override

from lightning_green.energy.meter import Component
from lightning_green.energy.wall import Unit, WallMeter
from lightning_green.utilities.http.bodies import prometheus_series
from lightning_green.utilities.http.transport import Transport


class PrometheusMeter(WallMeter):
    """Measure the energy of the node with a Prometheus server.

    A token in ``LIGHTNING_GREEN_METER_TOKEN`` or ``token_file`` is sent as ``Authorization: Bearer``.

    Args:
        url: Address of the server without credentials and without ``/api/v1``.
        query: PromQL expression with a single series: the number for this node.
        unit: ``"W"`` or ``"kW"`` for a power; ``"J"``, ``"Wh"`` or ``"kWh"`` for a cumulative energy.
        component: Component that the number measures; ``"other"`` for the whole node.
        every: Time between two samples, at least 0.1 s and the scrape interval of the server.
        token_file: File with the token; None for ``LIGHTNING_GREEN_METER_TOKEN``.

    Raises:
        ValueError: If an argument is invalid.

    Examples:
        ```python
        PrometheusMeter("http://prometheus:9090", 'ipmi_power_watts{instance="node7"}')
        ```

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
    def _fetch(self, transport: Transport, headers: dict[str, str]) -> float | None:
        body = transport.get(f"{self.url}/api/v1/query", {"query": self.query}, headers).body
        series = prometheus_series(body)
        sample = None if series is None else series.get("value")
        try:
            return float(sample[1]) if isinstance(sample, list) and len(sample) == 2 else None
        except (TypeError, ValueError):
            return None
