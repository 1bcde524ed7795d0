"""A zeusd on a Unix socket that keeps its settings in memory."""

import json
import socketserver
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlparse


class _Daemon(BaseHTTPRequestHandler):
    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_one(self):
        address, state = urlparse(self.path), self.server.state
        query = {key: value[0] for key, value in parse_qs(address.query).items()}
        ids = query.get("gpu_ids", "").split(",")
        state["seen"].append((self.command, address.path, query))
        if address.path == "/discover":
            return self.answer(200, {"gpus": [], "cpus": [], "enabled_api_groups": state["groups"]})
        if state["token"] and self.headers.get("Authorization") != f"Bearer {state['token']}":
            return self.answer(403, {"error": "no"})
        if address.path == "/gpu/get_power_limit":
            return self.answer(200, {gpu: {"power_limit_mw": state["limits"][gpu]} for gpu in ids})
        if address.path == "/gpu/get_power_limit_constraints":
            both = {"min_power_limit_mw": 100_000, "max_power_limit_mw": 400_000}
            return self.answer(200, dict.fromkeys(ids, both))
        if self.command == "POST" and address.path == "/gpu/set_power_limit":
            state["limits"].update(dict.fromkeys(ids, int(query["power_limit_mw"])))
            return self.answer(200, {})
        if self.command == "POST" and address.path == "/gpu/set_gpu_locked_clocks":
            state["clocks"] = (ids, int(query["min_clock_mhz"]), int(query["max_clock_mhz"]))
            return self.answer(200, {})
        if self.command == "POST" and address.path == "/gpu/reset_gpu_locked_clocks":
            state["clocks"] = None
            return self.answer(200, {})
        return self.answer(404, {})

    def do_GET(self):
        self.handle_one()

    do_POST = do_GET

    def address_string(self):
        return "unix"

    def log_message(self, *args):
        pass


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def zeusd_server(path):
    """Run a zeusd at ``path`` and yield its state."""
    server = _UnixServer(path, _Daemon)
    server.state = {
        "seen": [],
        "groups": ["gpu-control", "gpu-read"],
        "token": "",
        "limits": {"0": 300_000, "2": 250_000},
        "clocks": "never set",
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.state
    finally:
        server.shutdown()
        server.server_close()
