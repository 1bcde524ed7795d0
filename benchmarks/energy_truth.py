"""A known power curve through each meter: how far its total is from the truth, and what sampling costs.

python benchmarks/energy_truth.py --json [--seconds 30]

The curve is a sine over a base, with a counter that wraps around several times and a sensor that is silent for a while.
What is measured is the code behind the sensor; the sensors' own errors are not in it. ``sampling_core_pct`` is the
processor time of a thread that samples every ten seconds, in percent of one core.
"""

import argparse
import json
import math
import os
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lightning_green.energy.http_json import HttpJsonMeter
from lightning_green.energy.rapl import RaplMeter

BASE, SWING, PERIOD = 200.0, 100.0, 7.0


def power(at: float) -> float:
    return BASE + SWING * math.sin(2 * math.pi * at / PERIOD)


def energy(at: float) -> float:
    return BASE * at + SWING * PERIOD / 2 / math.pi * (1 - math.cos(2 * math.pi * at / PERIOD))


class Plug(BaseHTTPRequestHandler):
    """A wall meter."""

    def do_GET(self) -> None:
        """Answer with the power and the energy now."""
        at = time.monotonic() - self.server.began
        data = json.dumps({"w": power(at), "j": energy(at)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Print nothing."""


def rapl(folder: Path, seconds: float, wraps_at: float) -> tuple[float, float]:
    """Return the error in percent and the processor seconds of a sample."""
    zone = folder / "intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text(f"{round(wraps_at * 1e6)}\n")
    counter, began = zone / "energy_uj", time.monotonic()

    def show() -> float:
        at = time.monotonic() - began
        counter.write_text(f"{round(energy(at) % wraps_at * 1e6)}\n")
        return at

    start = show()
    meter = RaplMeter("1h", folder)
    meter.start()
    busy, samples, at = 0.0, 0, start
    while at < seconds:
        time.sleep(0.5)
        if seconds / 3 < at < seconds / 2:
            counter.unlink(missing_ok=True)  # silent
            at = time.monotonic() - began
        else:
            at = show()
        before = time.process_time()
        meter.sample()
        busy, samples = busy + time.process_time() - before, samples + 1
    at = show()
    meter.close()
    true = energy(at) - energy(start)
    return 100 * abs(meter.read()["cpu"].joules - true) / true, busy / samples


def wall(url: str, began: float, value: str, unit: str, seconds: float) -> float:
    meter = HttpJsonMeter(url, value, unit=unit, every="0.2s")
    before = time.monotonic()
    meter.start()
    start = (before + time.monotonic()) / 2 - began
    time.sleep(seconds)
    before = time.monotonic()
    meter.close()
    end = (before + time.monotonic()) / 2 - began
    true = energy(end) - energy(start)
    return 100 * abs(meter.read()["other"].joules - true) / true


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        os.environ.pop(name, None)
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadingHTTPServer(("127.0.0.1", 0), Plug) as plug,
    ):
        plug.began = time.monotonic()
        threading.Thread(target=plug.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{plug.server_port}"
        error, sample = rapl(Path(folder), options.seconds, wraps_at=options.seconds * BASE / 1.5)
        errors = {
            "rapl_error_pct": error,
            "http_power_error_pct": wall(url, plug.began, "w", "W", options.seconds),
            "http_counter_error_pct": wall(url, plug.began, "j", "J", options.seconds),
        }
        plug.shutdown()
    found = {
        **errors,
        "max_error_pct": max(errors.values()),
        "sampling_core_pct": 100 * sample / 10.0,
        "n": len(errors),
    }
    print(json.dumps(found) if options.json else "\n".join(f"{name}: {value:.4g}" for name, value in found.items()))


if __name__ == "__main__":
    main()
