"""Error and cost of each meter on a known power curve.

    python benchmarks/energy_truth.py --json [--seconds 60]

The curve is a constant plus a sine. The sources are a fake driver library behind the real nvidia-ml-py (a GPU whose
counter is not readable for a while, and a GPU without a counter), a directory like that of RAPL, whose counter wraps
around several times and is missing for a while, and local HTTP servers: a power meter and Prometheus. codecarbon and
carbontracker, if installed, read the GPUs with their own code. The errors are those of the code and not of sensors.

``max_error_pct`` is the largest error of a total. ``filled_in`` lists the meters that estimate a part of their total
and label it as modeled; the counter of RAPL is missing for longer than its range. ``sampling_core_pct`` is the CPU time
of one sample every ten seconds for the most expensive meter, in percent of one core.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lightning_green.energy.carbontracker import CarbonTrackerMeter  # noqa: E402
from lightning_green.energy.codecarbon import CodeCarbonMeter  # noqa: E402
from lightning_green.energy.http_json import HttpJsonMeter  # noqa: E402
from lightning_green.energy.meter import Component, Meter  # noqa: E402
from lightning_green.energy.nvml import NvmlMeter  # noqa: E402
from lightning_green.energy.prometheus import PrometheusMeter  # noqa: E402
from lightning_green.energy.rapl import RaplMeter  # noqa: E402
from tests.helpers.fake_nvml import LOST, OK, Card, FakeDriver  # noqa: E402

BASE, SWING, PERIOD = 200.0, 100.0, 7.0
EVERY = "0.2s"
DEFAULT_EVERY_SECONDS = 10.0
BEGAN = time.monotonic()


def now() -> float:
    return time.monotonic() - BEGAN


def power(at: float) -> float:
    return BASE + SWING * math.sin(2 * math.pi * at / PERIOD)


def energy(at: float) -> float:
    return BASE * at + SWING * PERIOD / 2 / math.pi * (1 - math.cos(2 * math.pi * at / PERIOD))


class CurveCard(Card):
    """A GPU whose power follows the curve. Its counter keeps counting while it is not readable."""

    silent_from, silent_until = math.inf, math.inf

    @property
    def millijoules(self) -> int:
        """Value of the counter in mJ."""
        return 5_000_000 + round(energy(now()) * 1e3)

    @millijoules.setter
    def millijoules(self, value: int) -> None:
        """Ignore assignments."""

    @property
    def milliwatts(self) -> int:
        """Power in mW."""
        return round(power(now()) * 1e3)

    @milliwatts.setter
    def milliwatts(self, value: int) -> None:
        """Ignore assignments."""

    @property
    def fault(self) -> int:
        """Return code of the driver."""
        return LOST if self.silent_from < now() < self.silent_until else OK

    @fault.setter
    def fault(self, value: int) -> None:
        """Ignore assignments."""


class Sources(BaseHTTPRequestHandler):
    """A power meter, and a Prometheus server with a current sample of it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Respond with the current power or energy."""
        at, address = now(), urlparse(self.path)
        if address.path == "/api/v1/query":
            value = power(at) if parse_qs(address.query)["query"] == ["node_power_watts"] else energy(at)
            series = {"metric": {"instance": "node"}, "value": [time.time(), repr(value)]}
            answer = {"status": "success", "data": {"resultType": "vector", "result": [series]}}
        else:
            answer = {"w": power(at), "j": energy(at)}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Print nothing."""


class RaplTree:
    """A directory with a CPU package whose counter wraps around and is missing for a while."""

    def __init__(self, folder: Path, wraps_at: float, silent: tuple[float, float]) -> None:
        self.folder, self._wraps_at, self._silent = folder, wraps_at, silent
        zone = folder / "intel-rapl:0"
        zone.mkdir(parents=True)
        (zone / "name").write_text("package-0\n")
        (zone / "max_energy_range_uj").write_text(f"{round(wraps_at * 1e6)}\n")
        self._counter, self._next = zone / "energy_uj", zone / "next"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._put()
        self._thread.start()

    def _put(self) -> None:
        if self._silent[0] < now() < self._silent[1]:
            self._counter.unlink(missing_ok=True)
            return
        self._next.write_text(f"{round(energy(now()) % self._wraps_at * 1e6)}\n")
        self._next.replace(self._counter)  # atomic for readers

    def _show(self) -> None:
        while not self._stop.wait(0.005):
            self._put()

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join()


@contextlib.contextmanager
def fake_driver(folder: Path, cards: list[Card]) -> Iterator[None]:
    """Install the fake driver, and an ``nvidia-smi``, by which codecarbon detects a driver."""
    FakeDriver(cards).install()
    tool = folder / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexit 0\n")
    tool.chmod(0o755)
    kept = dict(os.environ)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    os.environ["CUDA_VISIBLE_DEVICES"] = "2"
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def meters(url: str, tree: Path) -> dict[str, tuple[Meter, Component]]:
    found: dict[str, tuple[Meter, Component]] = {
        "nvml_counter": (NvmlMeter([0], EVERY), "gpu"),
        "nvml_power": (NvmlMeter([1], EVERY), "gpu"),
        "rapl": (RaplMeter(EVERY, tree, share="node"), "cpu"),
        "http_power": (HttpJsonMeter(url, "w", unit="W", every=EVERY), "other"),
        "http_counter": (HttpJsonMeter(url, "j", unit="J", every=EVERY), "other"),
        "prometheus_power": (PrometheusMeter(url, "node_power_watts", every=EVERY), "other"),
        "prometheus_counter": (PrometheusMeter(url, "node_energy_joules", unit="J", every=EVERY), "other"),
        "codecarbon": (CodeCarbonMeter(EVERY, gpu_ids=[2]), "gpu"),
    }
    if importlib.util.find_spec("carbontracker") is not None:
        found["carbontracker"] = (CarbonTrackerMeter(EVERY, components="gpu"), "gpu")
    else:
        print("carbontracker is not installed and is skipped", file=sys.stderr)
    return found


def reading(meter: Meter, component: Component) -> tuple[float, float]:
    """Take a sample; return its time in s and its energy in J."""
    before = now()
    meter.sample()
    return (before + now()) / 2, meter.read()[component].joules


def core_seconds(meter: Meter) -> float:
    """Return the CPU time of one sample in s."""
    samples = 50
    before = time.thread_time()
    for _ in range(samples):
        meter.sample()
        time.sleep(0.06)  # codecarbon skips samples within 50 ms of the last one
    return (time.thread_time() - before) / samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    seconds = options.seconds
    cards = [CurveCard("GPU-aa"), CurveCard("GPU-bb", has_counter=False), CurveCard("GPU-cc")]
    with tempfile.TemporaryDirectory() as name, ThreadingHTTPServer(("127.0.0.1", 0), Sources) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        start = now() + 5.0  # codecarbon needs a few seconds to detect the hardware
        silent = (start + seconds / 3, start + seconds / 2)
        cards[0].silent_from, cards[0].silent_until = silent
        tree = RaplTree(Path(name) / "powercap", seconds * BASE / 1.5, silent)
        with fake_driver(Path(name), cards), contextlib.redirect_stdout(io.StringIO()):
            used = meters(f"http://127.0.0.1:{server.server_port}", tree.folder)
            for meter, _ in used.values():
                meter.start()
            time.sleep(max(0.0, start - now()))
            first = {key: reading(meter, component) for key, (meter, component) in used.items()}
            time.sleep(seconds)
            last = {key: reading(meter, component) for key, (meter, component) in used.items()}
            guessed = [key for key, (meter, part) in used.items() if meter.read()[part].quality != "measured"]
            costs = {key: core_seconds(meter) for key, (meter, _) in used.items()}
            for meter, _ in used.values():
                meter.close()
        tree.close()
        server.shutdown()
    errors = {}
    for key in used:
        (begin, before), (end, after) = first[key], last[key]
        true = energy(end) - energy(begin)
        errors[key] = 100 * abs(after - before - true) / true
    found = {
        **{f"{key}_error_pct": error for key, error in errors.items()},
        "max_error_pct": max(errors.values()),
        **{f"{key}_core_pct": 100 * cost / DEFAULT_EVERY_SECONDS for key, cost in costs.items()},
        "sampling_core_pct": 100 * max(costs.values()) / DEFAULT_EVERY_SECONDS,
        "filled_in": guessed,
        "n": len(errors),
    }
    print(json.dumps(found) if options.json else "\n".join(f"{key}: {value}" for key, value in found.items()))


if __name__ == "__main__":
    main()
