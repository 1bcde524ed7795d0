"""The answers of each grid service, with the faults that only this service can have."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.helpers.grid_faults import HTML

if TYPE_CHECKING:
    from tests.helpers.fake_grid import FakeGrid

LB_PER_MWH = 1 / 0.45359237


def electricity_maps(
    grid: FakeGrid, path: str, query: dict[str, str], headers: dict[str, str]
) -> tuple[int, Any, dict[str, str]]:
    if headers.get("auth-token") != grid.token:
        return 401, b"", {}
    zone = "FR" if grid.fault("em") == "wrong_zone" else query.get("zone", "DE")
    past, ahead = grid.rows("em")
    sandbox = grid.fault("em") == "sandbox"

    def row(at: datetime, value: Any) -> dict[str, Any]:
        return {
            "zone": zone,
            "carbonIntensity": value,
            "datetime": grid.stamp("em", at),
            "updatedAt": grid.stamp("em", grid.now),
            "emissionFactorType": query.get("emissionFactorType", "lifecycle"),
            "isEstimated": sandbox or grid.fault("em") == "estimated",
            "estimationMethod": "SANDBOX_MODE_DATA" if sandbox else None,
        }

    if path.endswith("/zones"):
        routes = ["carbon-intensity/latest", "carbon-intensity/history"]
        if grid.fault("em") != "no_forecast_in_plan":
            routes.append("carbon-intensity/forecast")
        return 200, {"DE": {"zoneName": "Germany", "access": routes}, "FR": {"zoneName": "France", "access": ["*"]}}, {}
    if path.endswith("/latest"):
        etag = f'"{grid.now.timestamp():.0f}"'
        if headers.get("if-none-match") == etag:
            return 304, b"", {"ETag": etag}
        newest = max(past, key=lambda point: point[0])
        newest = next(point for point in reversed(past) if point[0] == newest[0])
        return 200, row(*newest), {"ETag": etag}
    if path.endswith("/history"):
        return 200, {"zone": zone, "history": [row(*point) for point in past]}, {}
    if grid.fault("em") == "no_forecast_in_plan":
        return 403, {"error": "not in your plan"}, {}
    body = {
        "zone": zone,
        "forecast": [{"carbonIntensity": value, "datetime": grid.stamp("em", at)} for at, value in ahead],
        "updatedAt": grid.stamp("em", grid.now),
    }
    if sandbox:
        body["_disclaimer"] = "SANDBOX MODE: this data is randomized"
    return 200, body, {}


def watttime(
    grid: FakeGrid, path: str, query: dict[str, str], headers: dict[str, str]
) -> tuple[int, Any, dict[str, str]]:
    if path == "/login":
        expected = "Basic " + base64.b64encode(f"{grid.user}:{grid.password}".encode()).decode()
        if headers.get("authorization") != expected:
            return 401, HTML, {}
        grid.tokens += 1
        grid.valid_token = f"token-{grid.tokens}"
        return 200, {"token": grid.valid_token}, {}
    if not grid.valid_token or headers.get("authorization") != f"Bearer {grid.valid_token}":
        return 401, HTML, {}
    if path.endswith("/region-from-loc"):
        if query["latitude"] == "0":
            return 404, {"error": "No coverage available for these coordinates and signal_type"}, {}
        return 200, {"region": "CAISO_NORTH", "signal_type": "co2_moer"}, {}
    past, ahead = grid.rows("watttime")
    fault = grid.fault("watttime")
    meta = {
        "region": "PSCO" if fault == "wrong_zone" else query["region"],
        "units": "percentile" if fault == "percentile" else "lbs_co2_per_mwh",
        "signal_type": "co2_moer",
        "generated_at": grid.stamp("watttime", grid.now),
    }
    rows = past if path.endswith("/historical") else [past[-1], *ahead]
    data = [
        {"point_time": grid.stamp("watttime", at), "value": None if value is None else value * LB_PER_MWH}
        for at, value in rows
    ]
    return 200, {"data": data, "meta": meta}, {}


def neso(grid: FakeGrid, path: str, query: dict[str, str], headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
    past, ahead = grid.rows("neso")

    def row(at: datetime, actual: Any, forecast: Any) -> dict[str, Any]:
        intensity = {"forecast": forecast, "actual": actual, "index": "moderate"}
        return {
            "from": grid.stamp("neso", at),
            "to": grid.stamp("neso", at + timedelta(minutes=30)),
            "intensity": intensity,
        }

    if "/fw48h" in path:
        rows = [row(at, None, value) for at, value in [past[-1], *ahead]]
    else:
        rows = [row(at, value, value) for at, value in past]
    if "/regionid/" in path:
        region = 3 if grid.fault("neso") == "wrong_zone" else int(path.rsplit("/", 1)[1])
        return 200, {"data": {"regionid": region, "data": rows}}, {}
    return 200, {"data": rows}, {}


def energy_charts(
    grid: FakeGrid, path: str, query: dict[str, str], headers: dict[str, str]
) -> tuple[int, Any, dict[str, str]]:
    if query["country"] == "xx":
        return 400, b"'xx' is not the code for an available country.", {}
    past, ahead = grid.rows("charts")
    body = {
        "unix_seconds": [int(at.timestamp()) for at, _ in [*past, *ahead]],
        "co2eq": [value for _, value in past] + [None] * len(ahead),
        "co2eq_forecast": [None] * len(past) + [value for _, value in ahead],
        "deprecated": False,
    }
    if grid.fault("charts") == "unequal":
        body["co2eq"] = body["co2eq"][:-1]
    return 200, body, {}


def energi_data_service(
    grid: FakeGrid, path: str, query: dict[str, str], headers: dict[str, str]
) -> tuple[int, Any, dict[str, str]]:
    area = json.loads(query["filter"])["PriceArea"][0]
    area = ("DK2" if area == "DK1" else "DK1") if grid.fault("eds") == "wrong_zone" else area
    past, ahead = grid.rows("eds")
    rows = [past[-1], *ahead] if path.endswith("Prog") else past
    records = [
        {"Minutes5UTC": at.strftime("%Y-%m-%dT%H:%M:%S"), "PriceArea": area, "CO2Emission": value} for at, value in rows
    ]
    name = path.rsplit("/", 1)[1]
    return 200, {"total": len(records), "limit": int(query["limit"]), "dataset": name, "records": records}, {}


def carbon_aware_sdk(
    grid: FakeGrid, path: str, query: dict[str, str], headers: dict[str, str]
) -> tuple[int, Any, dict[str, str]]:
    past, ahead = grid.rows("sdk")
    location = "elsewhere" if grid.fault("sdk") == "wrong_zone" else query["location"]
    if path.endswith("/bylocations"):
        return 200, [{"location": location, "time": grid.stamp("sdk", at), "rating": value} for at, value in past], {}
    data = [
        {"location": "IE", "timestamp": grid.stamp("sdk", at), "duration": 60, "value": value} for at, value in ahead
    ]
    forecast = {"generatedAt": grid.stamp("sdk", grid.now), "location": location, "forecastData": data}
    return 200, [{**forecast, "optimalDataPoints": data[:1]}], {}


def plain_json(
    grid: FakeGrid, path: str, query: dict[str, str], headers: dict[str, str]
) -> tuple[int, Any, dict[str, str]]:
    past, ahead = grid.rows("json")
    at, value = max(past, key=lambda point: point[0])
    value = next(known for time_, known in reversed(past) if time_ == at)
    predicted = [{"t": grid.stamp("json", when), "g": known} for when, known in ahead]
    zone = "FR" if grid.fault("json") == "wrong_zone" else "DE"
    return 200, {"zone": zone, "now": {"g": value, "t": grid.stamp("json", at)}, "next": predicted}, {}


def prometheus(
    grid: FakeGrid, path: str, query: dict[str, str], headers: dict[str, str]
) -> tuple[int, Any, dict[str, str]]:
    past, _ = grid.rows("prometheus")
    values = [[at.timestamp(), str("NaN" if value is None else value)] for at, value in past]
    if path.endswith("/query_range"):
        result = [{"metric": {}, "values": values}]
        return 200, {"status": "success", "data": {"resultType": "matrix", "result": result}}, {}
    newest = max(values, key=lambda sample: sample[0])
    newest = next(sample for sample in reversed(values) if sample[0] == newest[0])
    result = [{"metric": {}, "value": newest}]
    return 200, {"status": "success", "data": {"resultType": "vector", "result": result}}, {}


SERVICES = {
    "em": electricity_maps,
    "watttime": watttime,
    "neso": neso,
    "charts": energy_charts,
    "eds": energi_data_service,
    "sdk": carbon_aware_sdk,
    "json": plain_json,
    "prometheus": prometheus,
}
