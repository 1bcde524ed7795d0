"""Serves the page of running trainings on the loopback interface."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import override

_HOSTS = ("127.0.0.1", "localhost", "[::1]")


class LiveServer(ThreadingHTTPServer):
    """An HTTP server on 127.0.0.1 that writes the page again for each request.

    Args:
        page: Returns the page.
        port: Port; 0 for a free one.

    Raises:
        OSError: If the port is in use.

    Examples:
        ```python
        server = LiveServer(lambda: html_page([read_run_report(run_dir)], refresh_seconds=10))
        print(server.address)
        server.serve_forever()
        ```

    """

    daemon_threads = True

    def __init__(self, page: Callable[[], str], port: int = 0) -> None:
        self.page = page
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def address(self) -> str:
        """Address for a browser."""
        return f"http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if host not in _HOSTS:  # the page of another site that has pointed its name to this machine
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path.partition("?")[0] != "/":
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            try:
                body = self.server.page().encode()
            except (OSError, ValueError, RuntimeError) as error:
                self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, explain=str(error))
                return
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing: each refresh would be a line."""
