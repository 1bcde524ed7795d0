"""An HTTP server on the loopback interface that imitates every grid service and its faults.

``fake_services.py`` contains the answers of each service, ``grid_faults.py`` the faults.
"""

from __future__ import annotations

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

from tests.helpers.fake_services import SERVICES
from tests.helpers.grid_faults import HTML, SKEW, STATUS

STEPS = {"em": 60, "watttime": 5, "neso": 30, "charts": 15, "eds": 5, "sdk": 60, "json": 60, "prometheus": 5}
TOKEN, USER, PASSWORD = "em-secret-token", "alice", "wt-secret-password"


def solar_day(at: datetime) -> float:
    """Return an artificial intensity that is different in every hour of two days."""
    hours = at.timestamp() / 3600.0
    return 300.0 + 10.0 * (hours // 1 % 24) + 1.0 * (hours // 24 % 2)


class FakeGrid:
    """The server.

    Attributes:
        now: Present time of the services.
        truth: Function from a time to the intensity; forecasts equal it.
        lag: Age of the newest measured value.
        faults: Fault by service; the key ``None`` applies to all services.
        requests: ``(service, path, query, headers)`` of each request so far.
        horizon: Length of the forecasts.

    """

    def __init__(self, now: datetime, truth: Callable[[datetime], float] = solar_day, port: int = 0) -> None:
        self.now, self.truth = now, truth
        self.lag, self.horizon = timedelta(0), timedelta(hours=48)
        self.faults: dict[str | None, str | None] = {}
        self.requests: list[tuple[str, str, dict[str, str], dict[str, str]]] = []
        self.drip_seconds, self.drip_until = 0.05, time.monotonic() + 60.0
        self.token, self.user, self.password = TOKEN, USER, PASSWORD
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
        """The port. A server with the same port has the same addresses."""
        return int(self._server.server_address[1])

    def fault(self, service: str) -> str | None:
        return self.faults.get(service, self.faults.get(None))

    def count(self, service: str, part: str = "") -> int:
        return sum(1 for name, path, _, _ in self.requests if name == service and part in path)

    def rows(self, service: str) -> tuple[list[tuple[datetime, Any]], list[tuple[datetime, Any]]]:
        """Return the measured and the predicted values of a service, with faults in the data."""
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
        """Return a time in the format of the service; with a local offset for the fault ``local_times``."""
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
                with contextlib.suppress(OSError):  # the client closed the connection
                    grid._send(self, service, "/" + path, status, body, more)

        return Handler

    def _answer(
        self, service: str, path: str, query: dict[str, str], headers: dict[str, str]
    ) -> tuple[int, Any, dict[str, str]]:
        if service == "to":  # a redirect: the address is the rest of the path
            return 302, b"", {"Location": f"http:/{path}"}
        return SERVICES[service](self, path, query, headers)

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
        """Send single bytes, each within the read limit of the client, until the client closes the connection."""
        handler.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(data)):
            handler.wfile.write(data[at : at + 1])
            handler.wfile.flush()
            time.sleep(self.drip_seconds)
            if time.monotonic() > self.drip_until:
                handler.connection.shutdown(socket.SHUT_RDWR)
                return
