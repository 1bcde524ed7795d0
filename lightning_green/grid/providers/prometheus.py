"""Carbon intensity from a Prometheus server."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from typing_extensions import override

from lightning_green.grid.live.answer import (
    Answer,
    Point,
    Query,
    floor_time,
    mapping,
    ordered,
    read_unix,
    read_value,
    whole,
)
from lightning_green.grid.live.signal import MAX_AGE
from lightning_green.grid.providers.http_json import HttpJsonSignal
from lightning_green.utilities.durations import parse_duration
from lightning_green.utilities.http.errors import UnreadableError


class PrometheusSignal(HttpJsonSignal):
    """Carbon intensity that a site's own exporter writes to Prometheus.

    The query has to give one series. The credential is that of :class:`HttpJsonSignal`.

    Args:
        url: Address of the server, without ``/api/v1``.
        query: PromQL that gives one series of gCO2e/kWh (times ``factor``).
        zone: Grid zone that it speaks for, or None.
        kind: What the number means.
        factor: What to multiply with to get gCO2e/kWh.
        resolution: How often the value changes.
        token_file: A file that holds the token; None for the environment.
        max_age: Values older than this are not taken for "now".

    Raises:
        ValueError: If an argument cannot be read.

    Example::

        PrometheusSignal("http://prometheus.example:9090", 'grid_carbon_intensity{zone="DE"}', zone="DE")

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
        super().__init__(
            url.rstrip("/"), zone, kind, factor=factor, resolution=resolution, token_file=token_file, max_age=max_age
        )
        self.query, self.factor = query, factor
        self.source = "prometheus"
        self._arguments = {
            "url": url,
            "query": query,
            "zone": zone,
            "kind": kind,
            "factor": factor,
            "resolution": f"{parse_duration(resolution).total_seconds():g}s",
            "token_file": token_file,
            "max_age": max_age,
        }

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
    """Read the answer of ``/api/v1/query`` or ``/api/v1/query_range``."""
    data = mapping(body).get("data")
    if body.get("status") != "success" or not isinstance(data, Mapping):
        raise UnreadableError("Prometheus does not answer with success; check the query")
    result = data.get("result")
    if not isinstance(result, list) or not all(isinstance(series, Mapping) for series in result):
        raise UnreadableError("Prometheus answers without a list of series; the query should give a vector")
    if len(result) > 1:
        raise UnreadableError(f"the Prometheus query gives {len(result)} series; narrow it down to one")
    points = []
    for series in result:
        samples = series.get("values") if "values" in series else [series.get("value")]
        for sample in samples if isinstance(samples, list) else []:
            if not isinstance(sample, list) or len(sample) != 2:
                continue
            time, value = read_unix(sample[0]), read_value(_number(sample[1]), factor)
            if time is not None and value is not None:
                points.append(Point(time, value))
    return whole(Answer(past=ordered(points)))


def _number(raw: Any) -> float | None:
    try:
        number = float(raw) if isinstance(raw, str) and len(raw) < 50 else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
