"""Values in the JSON bodies of services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_green.utilities.http.errors import UnreadableError


def at_path(body: Any, path: str) -> Any:
    """Return the element at a path of keys and positions, or None.

    Examples:
        >>> at_path({"data": [{"now": 3}]}, "data.0.now")
        3

    """
    for part in path.split("."):
        if isinstance(body, Mapping):
            body = body.get(part)
        elif isinstance(body, list) and part.isascii() and part.isdigit() and int(part) < len(body):
            body = body[int(part)]
        else:
            return None
    return body


def prometheus_series(body: Any) -> Mapping[str, Any] | None:
    """Return the only series in the answer of Prometheus to a query, or None if there is no series.

    Args:
        body: Decoded JSON.

    Raises:
        UnreadableError: If the query failed or returned several series.

    Examples:
        >>> sample = {"metric": {}, "value": [1714521600.0, "215.5"]}
        >>> prometheus_series({"status": "success", "data": {"resultType": "vector", "result": [sample]}})["value"]
        [1714521600.0, '215.5']

    """
    data = body.get("data") if isinstance(body, Mapping) else None
    if not isinstance(data, Mapping) or body.get("status") != "success":
        raise UnreadableError("Prometheus does not report success; check the query")
    result = data.get("result")
    if not isinstance(result, list) or not all(isinstance(series, Mapping) for series in result):
        raise UnreadableError("Prometheus answers without a list of series; the query should return a vector")
    if len(result) > 1:
        raise UnreadableError(f"the Prometheus query returns {len(result)} series; it should return one")
    return result[0] if result else None
