"""Carbon intensity from a Prometheus server."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from typing_extensions import override

from lightning_green.grid.live import (
    MAX_AGE,
    Answer,
    LiveSignal,
    Query,
    TokenAuthentication,
    collect_points,
    floor_time,
    parse_unix_time,
    parse_value,
    require_points,
)
from lightning_green.grid.providers.http_json import TOKEN_VARIABLE, check_arguments
from lightning_green.grid.signal import SignalKind
from lightning_green.utilities.http.bodies import prometheus_series


class PrometheusSignal(LiveSignal):
    """Carbon intensity from a metric in Prometheus.

    The query must return one series. The credential is read as in ``HttpJsonSignal``.

    Args:
        url: Address of the server, without ``/api/v1``.
        query: PromQL expression that returns one series.
        zone: Grid zone of the values, or None.
        kind: Definition of the values.
        factor: Factor from the unit of the series to gCO2e/kWh.
        resolution: Interval between two values.
        token_file: File that contains the token; None for the environment.
        max_age: Values older than this are not used for the present.

    Raises:
        ValueError: If an argument is invalid.

    Examples:
        ```python
        PrometheusSignal("http://prometheus.example:9090", 'grid_carbon_intensity{zone="DE"}', zone="DE")
        ```

    """

    def __init__(
        self,
        url: str,
        query: str,
        zone: str | None = None,
        kind: str = "average/lifecycle",
        factor: float = 1.0,
        resolution: str | timedelta = "5m",
        token_file: str | None = None,
        max_age: str = MAX_AGE,
    ) -> None:
        if not isinstance(query, str) or not query.strip():
            raise ValueError(f"`query` should be a PromQL expression, got {query!r}.")
        step = check_arguments(url, factor, resolution)
        self.url = url.rstrip("/")
        self.query, self.factor = query, factor
        arguments = {
            "url": url,
            "query": query,
            "zone": zone,
            "kind": kind,
            "factor": factor,
            "resolution": f"{step.total_seconds():g}s",
            "token_file": token_file,
            "max_age": max_age,
        }
        token = TokenAuthentication(TOKEN_VARIABLE, token_file, required=False)
        super().__init__("prometheus", zone, SignalKind.parse(kind), step, arguments, max_age, token)

    @override
    def queries(self, now: datetime) -> Sequence[Query]:
        end = floor_time(now, self.step)
        span = {"query": self.query, "start": f"{(end - timedelta(days=1)).timestamp():.0f}"}
        span |= {"end": f"{end.timestamp():.0f}", "step": f"{self.step.total_seconds():.0f}"}
        base, parse = f"{self.url}/api/v1", partial(parse_result, factor=self.factor)
        history = f"{base}/query_range"
        return (
            Query("now", f"{base}/query", self.step, parse, {"query": self.query}),
            Query(
                "history", history, timedelta(hours=1), parse, span, identity=f"{history} {self.query}", optional=True
            ),
        )


def parse_result(body: Any, factor: float = 1.0) -> Answer:
    """Parse the answer of ``/api/v1/query`` or ``/api/v1/query_range``."""
    series = prometheus_series(body) or {}
    samples = series.get("values") if "values" in series else [series.get("value")]
    points = collect_points(
        (parse_unix_time(sample[0]), parse_value(_number(sample[1]), factor), "measured")
        for sample in (samples if isinstance(samples, list) else [])
        if isinstance(sample, list) and len(sample) == 2
    )
    return require_points(Answer(past=points))


def _number(raw: Any) -> float | None:
    try:
        number = float(raw) if isinstance(raw, str) and len(raw) < 50 else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
