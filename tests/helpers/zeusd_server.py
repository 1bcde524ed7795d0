"""A zeusd on a Unix socket that keeps its settings in memory.

As in zeusd, an operation can be replaced by commands, which run one after the other until one fails.
"""

import json
import re
import shlex
import socketserver
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlparse

PARAMETERS = {
    "set_power_limit": ("power_limit_mw",),
    "set_gpu_locked_clocks": ("min_clock_mhz", "max_clock_mhz"),
    "reset_gpu_locked_clocks": (),
    "reset_locked_clocks": (),
}


class _Daemon(BaseHTTPRequestHandler):
    def answer(self, status, body=None):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_one(self):
        address, state = urlparse(self.path), self.server.state
        query = {key: value[0] for key, value in parse_qs(address.query).items()}
        state["seen"].append((self.command, address.path, query))
        if address.path == "/discover":
            return self.answer(200, {"gpus": [], "cpus": [], "enabled_api_groups": state["groups"]})
        if state["token"] and self.headers.get("Authorization") != f"Bearer {state['token']}":
            return self.answer(403, {"error": "no"})
        ids = query["gpu_ids"].split(",") if "gpu_ids" in query else list(state["limits"])
        if self.command == "GET" and address.path.startswith("/gpu/get_") and "gpu-read" not in state["groups"]:
            return self.answer(404, {"error": "API group 'gpu-read' is not enabled on this server."})
        if address.path == "/gpu/get_power_limit":
            return self.answer(200, {gpu: {"power_limit_mw": state["limits"][gpu]} for gpu in ids})
        if address.path == "/gpu/get_power_limit_constraints":
            both = {"min_power_limit_mw": 100_000, "max_power_limit_mw": 400_000}
            return self.answer(200, dict.fromkeys(ids, both))
        operation = address.path.removeprefix("/gpu/")
        if self.command != "POST" or operation not in PARAMETERS:
            return self.answer(404, {})
        if set(query) != {"gpu_ids", "block", *PARAMETERS[operation]}:
            return self.answer(400, {"error": "unknown or missing parameter"})
        return self.write(operation, ids, {name: int(query[name]) for name in PARAMETERS[operation]})

    def write(self, operation, ids, values):
        state, errors = self.server.state, {}
        for gpu in ids:
            if operation in state["overrides"]:
                errors[gpu] = self.run_commands(state["overrides"][operation], gpu, values)
            elif not state["root"]:
                errors[gpu] = (403, "NVML error: the current user does not have permission to perform this operation")
            else:
                self.change(operation, gpu, values)
        errors = {gpu: error for gpu, error in errors.items() if error is not None}
        if not errors:
            return self.answer(200)
        status = max(status for status, _ in errors.values())
        return self.answer(status, {"errors": {gpu: text for gpu, (_, text) in errors.items()}})

    def change(self, operation, gpu, values):
        state = self.server.state
        if operation == "set_power_limit":
            state["limits"][gpu] = values["power_limit_mw"]
        elif operation == "set_gpu_locked_clocks":
            state["clocks"][gpu] = (values["min_clock_mhz"], values["max_clock_mhz"])
        else:
            state["clocks"][gpu] = None

    def run_commands(self, spec, gpu, values):
        """Return status and text of the first failure, or None. The commands write the limits in W into files."""
        words = {"gpu_id": gpu, **values}
        if "power_limit_mw" in values:
            words["power_limit_w"] = values["power_limit_mw"] // 1000
        for template in spec["commands"]:
            command = [word.format(**words) for word in shlex.split(template)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=spec["folder"], check=False)
            self.read_files(Path(spec["folder"]))
            reason = f"exited with code {done.returncode}" if done.returncode else None
            if (
                reason is None
                and "error_pattern" in spec
                and re.search(spec["error_pattern"], done.stdout + done.stderr)
            ):
                reason = f"succeeded but its output matched error_pattern '{spec['error_pattern']}'"
            if reason is not None:
                output = f"stdout: {done.stdout}; stderr: {done.stderr}"
                return 500, f"Override command failed: command '{shlex.join(command)}' {reason}; {output}"
        return None

    def read_files(self, folder):
        for name in self.server.state["limits"]:
            if (folder / name).exists():
                self.server.state["limits"][name] = int((folder / name).read_text()) * 1000

    def do_GET(self):
        with self.server.lock:
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
    """Run a zeusd at ``path`` and yield its state.

    In the state, ``root`` is whether zeusd may change GPUs by itself, and ``overrides`` contains the commands by
    operation: ``{"set_power_limit": {"commands": [...], "folder": ...}}``.
    """
    server = _UnixServer(path, _Daemon)
    server.lock = threading.Lock()
    server.state = {
        "seen": [],
        "groups": ["gpu-control", "gpu-read"],
        "token": "",
        "root": True,
        "overrides": {},
        "limits": {"0": 300_000, "2": 250_000},
        "clocks": {},
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.state
    finally:
        server.shutdown()
        server.server_close()
