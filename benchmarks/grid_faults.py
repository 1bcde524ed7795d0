"""Measure the delay of training steps by polling, for every fault of a grid service.

    python benchmarks/grid_faults.py --json

A Trainer with CarbonScheduler and a live signal. The services are HTTP servers on the loopback interface, in another
process. For each fault, one `fit` runs in alternating blocks of steps with and without requests. The requests are sent
on a thread of the training process, as polling does, but several times per second instead of once in 5 to 15 minutes.
Figures:

    faults                  number of faults
    training_interrupted    fits that raised or did not complete all steps
    median_step_delay_ms    median delay over all pairs of blocks, with its 95 % interval. The delay of a pair is the
                            longest step of the block with requests minus the longest step of the block without
    max_step_delay_ms       largest lower end, over all faults, of the 95 % interval of the median delay
    largest_median_ms       largest median delay of one fault
    noise_ms                largest absolute median delay of control fits, which send no requests in either block
    delay_per_round_ms      delay of the training by one round of requests, median over the fits: the difference of the
                            total durations of the blocks with and without requests, divided by the number of rounds
    cpu_per_round_ms        CPU time of one round of requests, mean: parsing, HTTP and the cache. It bounds the delay by
                            the interpreter's lock and, unlike the delay, does not depend on other load of the machine
    max_call_ms             longest call of the signal on the training thread, median over the fits
    n                       number of pairs of blocks
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from lightning_green import CarbonScheduler, EmissionsTracker
from lightning_green.grid.live import LiveSignal
from lightning_green.grid.providers.electricity_maps import ElectricityMapsSignal
from lightning_green.grid.providers.energy_charts import EnergyChartsSignal
from lightning_green.grid.providers.watttime import WattTimeSignal
from lightning_green.utilities.http.transport import Limits
from tests.helpers.fake_grid import PASSWORD, TOKEN, USER, FakeGrid
from tests.helpers.grid_faults import FAULTS

# with different authentication: a header, a login, none
SOURCES = {
    "em": lambda url: ElectricityMapsSignal("DE", url=f"{url}/em"),
    "watttime": lambda url: WattTimeSignal("CAISO_NORTH", url=f"{url}/watttime"),
    "charts": lambda url: EnergyChartsSignal("DE", url=f"{url}/charts"),
}
LIMITS = Limits(connect=0.5, read=0.25, total=0.5, attempts=2, wait=0.01, patience=0.05)
PAUSE_SECONDS = 0.1


def serve() -> None:
    """Serve until standard input ends. Each line of it sets the fault."""
    with FakeGrid(datetime.now(timezone.utc)) as grid:
        print(grid.url("").rstrip("/"), flush=True)
        for line in sys.stdin:
            grid.faults, grid.now = {None: line.strip() or None}, datetime.now(timezone.utc)
            grid.requests.clear()
            print("ready", flush=True)


class Server:
    """The fake services in another process, so that they do not delay the training."""

    def __init__(self) -> None:
        command = [sys.executable, __file__, "--serve"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()

    def fail(self, fault: str | None) -> None:
        """Set the fault; None for none."""
        self.process.stdin.write(f"{fault or ''}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == "ready"

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait(timeout=10)


class Requests:
    """Sends requests over and over on a daemon thread of the training process, as the polling thread does."""

    def __init__(self, signal: LiveSignal) -> None:
        self.signal, self.rounds, self.cpu_seconds = signal, 0, 0.0
        self.enabled, self.stopped = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while not self.stopped.is_set():
            if self.enabled.wait(0.05):
                began = time.thread_time()
                self.signal.refresh(force=True)
                self.cpu_seconds += time.thread_time() - began
                self.rounds += 1
                self.stopped.wait(PAUSE_SECONDS)

    def close(self) -> None:
        """Stop."""
        self.stopped.set()
        self.thread.join(timeout=5)


class Blocks(pl.Callback):
    """Measures the duration of each step and enables requests in one block of each pair."""

    def __init__(self, requests: Requests, steps: int, control: bool) -> None:
        self.requests, self.steps, self.control = requests, steps, control
        self.times: list[list[float]] = []
        self.last = 0.0

    @override
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step % self.steps == 0:
            number = trainer.global_step // self.steps
            # The order within a pair alternates, so that a drift of the machine's speed cancels.
            is_busy = number % 4 in (1, 2) and not self.control
            (self.requests.enabled.set if is_busy else self.requests.enabled.clear)()
            self.times.append([])
            time.sleep(0.01)
            self.last = time.perf_counter()

    @override
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        now = time.perf_counter()
        self.times[-1].append(now - self.last)
        self.last = now


class Model(pl.LightningModule):
    """Small, so that a delay is visible."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 128))

    @override
    def training_step(self, batch, batch_idx):
        loss = (self.net(batch[0]) - batch[0]).square().mean()
        self.log("loss", loss)
        return loss

    @override
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


def timed(signal: LiveSignal, thread: int) -> list[float]:
    """Measure the calls on the training thread."""
    calls: list[float] = []
    for name in ("intensity", "forecast", "mean", "pop_messages"):
        inner = getattr(signal, name)

        def outer(*args, inner=inner):
            began = time.perf_counter()
            try:
                return inner(*args)
            finally:
                if threading.get_ident() == thread:
                    calls.append(time.perf_counter() - began)

        setattr(signal, name, outer)
    return calls


def train(
    url: str, server: Server, name: str, fault: str | None, pairs: int, steps: int, *, control: bool = False
) -> dict[str, object]:
    """Run one fit while the source has ``fault`` and return the measurements; a ``control`` sends no requests."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIGHTNING_GREEN_CACHE_DIR"] = f"{folder}/cache"
        server.fail(None)
        signal = SOURCES[name](url)
        signal.fetcher.limits = LIMITS
        calls = timed(signal, threading.get_ident())
        requests = Requests(signal)
        signal.start()  # a valid answer first, so that there is a forecast
        assert signal.poller.is_running
        server.fail(fault)
        blocks = Blocks(requests, steps, control)
        total = pairs * 2 * steps
        trainer = pl.Trainer(
            max_steps=total,
            max_epochs=-1,
            accelerator="cpu",
            logger=pl.loggers.CSVLogger(folder),
            log_every_n_steps=1,
            callbacks=[
                EmissionsTracker(),
                CarbonScheduler(grid=signal, deadline="48h", on_pause="hold", meter=100.0, min_saving=1.0),
                blocks,
            ],
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = DataLoader(TensorDataset(torch.randn(steps * 32, 128)), batch_size=32)
        raised = ""
        try:
            trainer.fit(Model(), data)
        except Exception as error:  # noqa: BLE001  (every exception is a result)
            raised = repr(error)
        requests.close()
        signal.close()
    busy = [block for number, block in enumerate(blocks.times[: pairs * 2]) if block and number % 4 in (1, 2)]
    quiet = [block for number, block in enumerate(blocks.times[: pairs * 2]) if block and number % 4 not in (1, 2)]
    busy_longest, quiet_longest = [max(block) for block in busy], [max(block) for block in quiet]
    delay = sum(map(sum, busy)) - sum(map(sum, quiet))
    interrupted = bool(raised) or trainer.global_step != total
    differences = [1e3 * (b - q) for b, q in zip(busy_longest, quiet_longest, strict=False)]
    return {
        "source": name,
        "fault": fault or "none",
        "interrupted": interrupted,
        "why": raised,
        "steps": trainer.global_step,
        "rounds": requests.rounds,
        "differences_ms": differences,
        "delay_per_round_ms": 1e3 * delay / max(1, requests.rounds),
        "cpu_seconds": requests.cpu_seconds,
        "longest_call_ms": 1e3 * max(calls, default=0.0),
        "calls": len(calls),
        "quiet_longest_ms": 1e3 * statistics.median(quiet_longest) if quiet_longest else None,
    }


def interval(values: list[float], generator: random.Random) -> tuple[float, float]:
    """Return the 95 % interval of the median, from 2,000 bootstrap samples."""
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(2000))
    return medians[50], medians[1949]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--data", help="ignored: the services are fakes")
    parser.add_argument("--pairs", type=int, default=20, help="pairs of blocks per fault")
    parser.add_argument("--steps", type=int, default=60, help="steps per block")
    parser.add_argument("--controls", type=int, default=6, help="number of control fits")
    parser.add_argument("--faults", nargs="*", help="only these faults")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    os.environ |= {"ELECTRICITYMAPS_API_TOKEN": TOKEN, "WATTTIME_USERNAME": USER, "WATTTIME_PASSWORD": PASSWORD}
    torch.set_num_threads(1)
    pl.seed_everything(0, verbose=False)
    server, results, generator = Server(), [], random.Random(0)
    try:
        train(server.url, server, "em", None, 1, arguments.steps)  # warm up
        names, faults = list(SOURCES), arguments.faults or [None, *FAULTS]
        tasks = [("control", True)] * arguments.controls + [(fault, False) for fault in faults]
        generator.shuffle(tasks)  # so that other work on the machine affects all faults alike
        for number, (fault, control) in enumerate(tasks):
            real = None if fault in ("none", "control") else fault
            name = names[number % len(names)]
            result = train(server.url, server, name, real, arguments.pairs, arguments.steps, control=control)
            result |= {"fault": "control" if control else real or "none"}
            results.append(result)
            result["low"], result["high"] = interval(result["differences_ms"], generator)
            result["median"] = statistics.median(result["differences_ms"])
            print(
                f"{result['fault']:<16} {name:<9} {result['rounds']:4d} rounds  longest step "
                f"{result['median']:+.2f} ms [{result['low']:+.2f}, {result['high']:+.2f}] of "
                f"{result['quiet_longest_ms']:.2f}  longest call {result['longest_call_ms']:.2f} ms  {result['why']}",
                file=sys.stderr,
            )
    finally:
        server.close()
    controls = [result for result in results if result["fault"] == "control"]
    fits = [result for result in results if result["fault"] != "control"]
    worst = max(fits, key=lambda result: result["low"])
    pooled = [value for result in fits for value in result["differences_ms"]]
    low, high = interval(pooled, generator)
    figures = {
        "faults": len({result["fault"] for result in fits} - {"none"}),
        "training_interrupted": sum(result["interrupted"] for result in results),
        "max_step_delay_ms": round(max(0.0, worst["low"]), 3),
        "max_step_delay_fault": worst["fault"],
        "largest_median_ms": round(max(result["median"] for result in fits), 3),
        "noise_ms": round(max(abs(result["median"]) for result in controls), 3) if controls else None,
        "median_step_delay_ms": round(statistics.median(pooled), 3),
        "median_step_delay_ms_95": [round(low, 3), round(high, 3)],
        "delay_per_round_ms": round(statistics.median(result["delay_per_round_ms"] for result in fits), 3),
        "cpu_per_round_ms": round(
            1e3 * sum(result["cpu_seconds"] for result in fits) / max(1, sum(result["rounds"] for result in fits)), 3
        ),
        "max_call_ms": round(statistics.median(result["longest_call_ms"] for result in fits), 3),
        "calls": sum(result["calls"] for result in fits),
        "rounds": sum(result["rounds"] for result in fits),
        "n": len(pooled),
    }
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
