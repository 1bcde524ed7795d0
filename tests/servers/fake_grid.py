"""One HTTP server on the loopback interface that imitates every grid service, and every way in which one can fail."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

HTML = b"<html><head><title>Authorization Required</title></head><body>nginx</body></html>"
LB_PER_MWH = 1 / 0.45359237
STEPS = {"em": 60, "watttime": 5, "neso": 30, "charts": 15, "eds": 5, "sdk": 60, "json": 60, "prometheus": 5}
TOKEN, USER, PASSWORD = "em-secret-token", "alice", "wt-secret-password"


def solar_day(at: datetime) -> float:
    """Return a made-up intensity that differs in every hour of two days."""
    hours = at.timestamp() / 3600.0
    return 300.0 + 10.0 * (hours // 1 % 24) + 1.0 * (hours // 24 % 2)


class FakeGrid:
    """The server.

    Attributes:
        now: What the services take for the present.
        truth: The intensity at a time; forecasts are right.
        lag: How old the newest measured value is.
        faults: Fault by service; ``None`` as the service stands for all.
        requests: ``(service, path, query, headers)`` of each request so far.
        horizon: How far forecasts reach.

    """

    def __init__(self, now: datetime, truth: Callable[[datetime], float] = solar_day, port: int = 0) -> None:
        self.now, self.truth = now, truth
        self.lag, self.horizon = timedelta(0), timedelta(hours=48)
        self.faults: dict[str | None, str | None] = {}
        self.requests: list[tuple[str, str, dict[str, str], dict[str, str]]] = []
        self.drip_seconds, self.drip_until = 0.05, time.monotonic() + 60.0
        self.tokens = 0
        self.valid_token = ""
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> FakeGrid:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, service: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{service}"

    @property
    def port(self) -> int:
        """Where it listens; the same again makes the same addresses."""
        return int(self._server.server_address[1])

    def fault(self, service: str) -> str | None:
        return self.faults.get(service, self.faults.get(None))

    def count(self, service: str, part: str = "") -> int:
        return sum(1 for name, path, _, _ in self.requests if name == service and part in path)

    def rows(self, service: str) -> tuple[list[tuple[datetime, Any]], list[tuple[datetime, Any]]]:
        """Return the measured and the predicted values of a service, with the faults that lie in the data."""
        fault, step = self.fault(service), timedelta(minutes=STEPS[service])
        width = step.total_seconds()
        newest = datetime.fromtimestamp((self.now - self.lag).timestamp() // width * width, timezone.utc)
        count = int(timedelta(hours=24) / step)
        past: list[tuple[datetime, Any]] = [
            (newest - step * back, self.truth(newest - step * back)) for back in range(count, -1, -1)
        ]
        horizon = timedelta(hours=3) if fault == "short_forecast" else self.horizon
        ahead: list[tuple[datetime, Any]] = [
            (newest + step * on, self.truth(newest + step * on))
            for on in range(1, int((horizon + self.lag) / step) + 1)
        ]
        if fault == "null":
            past, ahead = [(at, None) for at, _ in past], [(at, None) for at, _ in ahead]
        if fault == "null_newest":
            past[-1] = (past[-1][0], None)
        if fault == "duplicates":
            past = [row for at, value in past for row in ((at, 1.0), (at, value))]
            ahead = [row for at, value in ahead for row in ((at, 1.0), (at, value))]
        if fault == "unordered":
            past, ahead = past[::-1], ahead[::-1]
        if fault == "clock_skew":
            past, ahead = [(at + SKEW, value) for at, value in past], [(at + SKEW, value) for at, value in ahead]
        return past, ahead

    def stamp(self, service: str, at: datetime) -> str:
        """Return a time as the service writes it; with a local offset where the fault is a change of the clocks."""
        if self.fault(service) == "local_times":
            return at.astimezone(ZoneInfo("Europe/Berlin")).isoformat()
        if service == "em":
            return at.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        if service == "neso":
            return at.strftime("%Y-%m-%dT%H:%MZ")
        return at.strftime("%Y-%m-%dT%H:%M:%S+00:00")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        grid = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                split = urlsplit(self.path)
                service, _, path = split.path.lstrip("/").partition("/")
                query, headers = dict(parse_qsl(split.query)), {k.lower(): v for k, v in self.headers.items()}
                grid.requests.append((service, "/" + path, query, headers))
                status, body, more = grid._answer(service, "/" + path, query, headers)
                with contextlib.suppress(OSError):  # the client had enough
                    grid._send(self, service, "/" + path, status, body, more)

        return Handler

    def _answer(
        self, service: str, path: str, query: dict[str, str], headers: dict[str, str]
    ) -> tuple[int, Any, dict[str, str]]:
        if service == "to":  # where to send somebody: the address is the rest of the path
            return 302, b"", {"Location": f"http:/{path}"}
        routes = {
            "em": electricity_maps,
            "watttime": watttime,
            "neso": neso,
            "charts": energy_charts,
            "eds": energi_data_service,
            "sdk": carbon_aware_sdk,
            "json": plain_json,
            "prometheus": prometheus,
        }
        return routes[service](self, path, query, headers)

    def _send(
        self, handler: BaseHTTPRequestHandler, service: str, path: str, status: int, body: Any, more: dict[str, str]
    ) -> None:
        fault = None if path == "/login" else self.fault(service)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if fault in STATUS:
            status, data, more = STATUS[fault]
        if fault == "expired_token" and not self.valid_token:
            status, data = 401, HTML
        if fault == "not_json":
            data = b"maintenance until noon"
        if fault == "html_200":
            data = HTML
        if fault == "empty":
            data = b""
        if fault == "too_large":
            data = b"[" + b"1," * 3_000_000 + b"1]"
        if fault == "deep":
            data = b"[" * 200_000
        if fault == "silent":
            time.sleep(0.4)
            return
        if fault == "reset":
            # a linger of 0 seconds makes the kernel answer with RST
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            return
        if fault == "redirect_away":
            status, data = 302, b""
            more = {"Location": self.url(service, host="localhost") + "/elsewhere"}
        if fault == "drip_headers":
            self._drip(handler, b"HTTP/1.1 200 OK\r\nX-Padding: " + b"x" * 100_000)
            return
        if fault == "redirect_here" and "moved=1" not in handler.path:
            status, data = 307, b""
            more = {"Location": handler.path + ("&" if "?" in handler.path else "?") + "moved=1"}
        if fault == "busy_once" and len(self.requests) == 1:
            status, data, more = 429, b"", {"Retry-After": "1"}
        if fault == "slow":
            time.sleep(0.4)
        skew = SKEW if fault == "clock_skew" else timedelta(0)
        handler.send_response_only(status)
        handler.send_header("Date", format_datetime(datetime.now(timezone.utc) + skew, usegmt=True))
        handler.send_header("Content-Length", str(len(data)))
        for name, value in more.items():
            handler.send_header(name, value)
        handler.end_headers()
        if fault == "truncated":
            handler.wfile.write(data[: len(data) // 2])
            handler.connection.shutdown(socket.SHUT_RDWR)
        elif fault == "slow_drip":
            self._drip(handler, data)
        else:
            handler.wfile.write(data)

    def _drip(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        """Send a byte now and then, each well within a reader's patience for one, until the other side hangs up."""
        handler.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(data)):
            handler.wfile.write(data[at : at + 1])
            handler.wfile.flush()
            time.sleep(self.drip_seconds)
            if time.monotonic() > self.drip_until:
                handler.connection.shutdown(socket.SHUT_RDWR)
                return


SKEW = timedelta(hours=2)
STATUS: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "401_empty": (401, b"", {}),
    "401_html": (401, HTML, {}),
    "403": (403, b'{"error":"Invalid scope"}', {}),
    "404": (404, b'{"error":"No recent data for zone \\"DE\\""}', {}),
    "429_retry_after": (429, b"", {"Retry-After": "120"}),
    "429": (429, b"", {}),
    "500": (500, b'{"error":{"code":"500 Internal Server Error","message":"string"}}', {}),
    "502_html": (502, HTML, {}),
}


def electricity_maps(
    grid: FakeGrid, path: str, query: dict[str, str], headers: dict[str, str]
) -> tuple[int, Any, dict[str, str]]:
    if headers.get("auth-token") != TOKEN:
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
        body["_disclaimer"] = "SANDBOX MODE: this data is randomised"
    return 200, body, {}


def watttime(
    grid: FakeGrid, path: str, query: dict[str, str], headers: dict[str, str]
) -> tuple[int, Any, dict[str, str]]:
    if path == "/login":
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
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


FAULTS = (
    *STATUS,
    "truncated",
    "slow_drip",
    "drip_headers",
    "silent",
    "reset",
    "redirect_away",
    "not_json",
    "html_200",
    "empty",
    "too_large",
    "deep",
    "null",
    "null_newest",
    "wrong_zone",
    "sandbox",
    "duplicates",
    "unordered",
    "clock_skew",
    "local_times",
    "short_forecast",
)
"""Every fault that more than one service may have."""
