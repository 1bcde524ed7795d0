"""The zeusd actuators against a real HTTP server on a Unix socket."""

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlparse

import pytest

from lightning_green.throttle.actuators.zeusd_locked_clocks import ZeusdLockedClocks
from lightning_green.throttle.actuators.zeusd_power_limit import ZeusdPowerLimit
from tests.energy.fake_nvml import Card, FakeDriver


class Daemon(BaseHTTPRequestHandler):
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


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def zeusd(tmp_path, monkeypatch):
    monkeypatch.delenv("ZEUSD_TOKEN", raising=False)
    path = str(tmp_path / "z.sock")
    monkeypatch.setenv("ZEUSD_SOCK_PATH", path)
    server = UnixServer(path, Daemon)
    server.state = {
        "seen": [],
        "groups": ["gpu-control", "gpu-read"],
        "token": "",
        "limits": {"0": 300_000, "2": 250_000},
        "clocks": "never set",
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.state
    server.shutdown()
    server.server_close()


def test_zeusd_sets_and_restores_a_power_limit(zeusd, tmp_path):
    cap = ZeusdPowerLimit(gpu_ids=[0, 2])
    cap.bind(tmp_path)
    assert [level.value for level in cap.levels()] == [250.0, 225.0, 200.0, 175.0, 150.0, 125.0]
    assert cap.set(cap.levels()[2])
    assert zeusd["limits"] == {"0": 200_000, "2": 200_000}
    cap.restore()
    assert zeusd["limits"] == {"0": 300_000, "2": 250_000}


def test_zeusd_takes_the_jobs_cards_from_the_driver(zeusd, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-cc")
    FakeDriver([Card("GPU-aa"), Card("GPU-bb"), Card("GPU-cc")]).install(monkeypatch)
    cap = ZeusdPowerLimit([120])
    cap.set(cap.levels()[1])
    assert zeusd["limits"] == {"0": 300_000, "2": 120_000}
    cap.restore()


def test_zeusd_locks_clocks(zeusd):
    clocks = ZeusdLockedClocks([1200], gpu_ids=[0, 2])
    clocks.set(clocks.levels()[1])
    assert zeusd["clocks"] == (["0", "2"], 0, 1200)
    clocks.restore()
    assert zeusd["clocks"] is None


def test_zeusd_that_refuses_or_is_not_there_says_what_would_help(zeusd, monkeypatch):
    zeusd["token"] = "secret-token"
    cap = ZeusdPowerLimit(gpu_ids=[0])
    assert cap.levels() == ()
    assert "ZEUSD_TOKEN" in cap.problem
    monkeypatch.setenv("ZEUSD_TOKEN", "secret-token")
    assert len(ZeusdPowerLimit(gpu_ids=[0]).levels()) > 1
    zeusd["groups"] = ["gpu-read"]
    off = ZeusdPowerLimit(gpu_ids=[0])
    assert off.levels() == ()
    assert "gpu-control" in off.problem
    gone = ZeusdPowerLimit(gpu_ids=[0], socket="/nowhere/zeusd.sock")
    assert gone.levels() == ()
    assert "ZEUSD_SOCK_PATH" in gone.problem
