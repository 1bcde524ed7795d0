"""Train against grid services that fail in every way, and measure what that does to the training.

    python benchmarks/grid_faults.py --json

A real Trainer with CarbonScheduler and a live signal; the services are real HTTP servers on the loopback interface, in
a process of their own. For each fault one `fit` runs in alternating blocks of steps: with the source asked again and
again (many times more often than a run ever does) and without. Figures:

    faults                  faults that were tried
    training_interrupted    fits that raised, or did not do all their steps
    max_step_delay_ms       the largest, over all faults, of the lower end of the 95 % interval of the median delay;
                            the delay of a pair of blocks is the longest step of the one with requests minus the longest
                            of its neighbour without
    largest_median_ms       the largest of the medians themselves
    noise_ms                the same of control fits, in which nobody asks in either block of a pair
    max_call_ms             the longest that the training thread spent in one call of the signal, median over the fits
    n                       pairs of blocks
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
from lightning_green.grid.live.poller import Message
from lightning_green.grid.live.signal import LiveSignal
from lightning_green.grid.providers.electricity_maps import ElectricityMapsSignal
from lightning_green.grid.providers.energy_charts import EnergyChartsSignal
from lightning_green.grid.providers.watttime import WattTimeSignal
from lightning_green.utilities.http.transport import Limits
from tests.servers.fake_grid import PASSWORD, TOKEN, USER, FakeGrid
from tests.servers.faults import FAULTS

# each with another way to show a credential: a header, a log-in, none
SOURCES = {
    "em": lambda url: ElectricityMapsSignal("DE", url=f"{url}/em"),
    "watttime": lambda url: WattTimeSignal("CAISO_NORTH", url=f"{url}/watttime"),
    "charts": lambda url: EnergyChartsSignal("DE", url=f"{url}/charts"),
}
LIMITS = Limits(connect=0.5, read=0.25, total=0.5, attempts=2, wait=0.01, patience=0.05)
PAUSE_SECONDS = 0.1


def serve() -> None:
    """Serve until standard input ends; a line of it is the fault from then on."""
    with FakeGrid(datetime.now(timezone.utc)) as grid:
        print(grid.url("").rstrip("/"), flush=True)
        for line in sys.stdin:
            grid.faults, grid.now = {None: line.strip() or None}, datetime.now(timezone.utc)
            grid.requests.clear()
            print("ready", flush=True)


class Server:
    """The fake services, in a process of their own: their work must not count as the training's."""

    def __init__(self) -> None:
        command = [sys.executable, __file__, "--serve"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()

    def fail(self, fault: str | None) -> None:
        """Fail in this way from now on; None for not at all."""
        self.process.stdin.write(f"{fault or ''}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == "ready"

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait(timeout=10)


class Asker:
    """Has the polling process ask over and over, and counts what comes back."""

    def __init__(self, signal: LiveSignal) -> None:
        self.signal, self.rounds = signal, 0
        self.asking, self.stopped = threading.Event(), threading.Event()
        take = signal._take

        def counted(message: Message) -> None:
            take(message)
            self.rounds += 1

        signal._take = counted
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while not self.stopped.is_set():
            if self.asking.wait(0.05):
                self.signal.ask_now()
                self.stopped.wait(PAUSE_SECONDS)

    def close(self) -> None:
        """Stop."""
        self.stopped.set()
        self.thread.join(timeout=5)


class Blocks(pl.Callback):
    """Times each step, and lets the source be asked in every second block."""

    def __init__(self, asker: Asker, steps: int, control: bool) -> None:
        self.asker, self.steps, self.control = asker, steps, control
        self.times: list[list[float]] = []
        self.last = 0.0

    @override
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step % self.steps == 0:
            number = trainer.global_step // self.steps
            # the first of each pair by turns, so that a drift of the machine's speed cancels
            asks = number % 4 in (1, 2) and not self.control
            (self.asker.asking.set if asks else self.asker.asking.clear)()
            self.times.append([])
            time.sleep(0.01)
            self.last = time.perf_counter()

    @override
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        now = time.perf_counter()
        self.times[-1].append(now - self.last)
        self.last = now


class Model(pl.LightningModule):
    """Small, so that a delay is seen."""

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
    """Time the calls of the training thread."""
    calls: list[float] = []
    for name in ("intensity", "forecast", "mean", "news"):
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
    """Run one fit while the source has ``fault``, and return what came of it; nobody asks in a ``control``."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIGHTNING_GREEN_CACHE_DIR"] = f"{folder}/cache"
        server.fail(None)
        signal = SOURCES[name](url)
        signal.limits = LIMITS
        calls = timed(signal, threading.get_ident())
        asker = Asker(signal)
        signal.start()  # a good answer first, so that there is a forecast in hand
        assert signal._asker is not None, "the polling process did not start"
        server.fail(fault)
        blocks = Blocks(asker, steps, control)
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
        except Exception as error:  # noqa: BLE001  (whatever it is, it is what this looks for)
            raised = repr(error)
        asker.close()
        signal.close()
    quiet_longest, busy_longest = [], []
    for number, block in enumerate(blocks.times[: pairs * 2]):
        if block:
            (busy_longest if number % 4 in (1, 2) else quiet_longest).append(max(block))
    interrupted = bool(raised) or trainer.global_step != total
    differences = [1e3 * (b - q) for b, q in zip(busy_longest, quiet_longest, strict=False)]
    return {
        "source": name,
        "fault": fault or "none",
        "interrupted": interrupted,
        "why": raised,
        "steps": trainer.global_step,
        "rounds": asker.rounds,
        "differences_ms": differences,
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
    parser.add_argument("--data", help="not needed: the services are imitated")
    parser.add_argument("--pairs", type=int, default=20, help="pairs of blocks for each fault")
    parser.add_argument("--steps", type=int, default=60, help="steps of a block")
    parser.add_argument("--controls", type=int, default=6, help="control fits")
    parser.add_argument("--faults", nargs="*", help="these alone")
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
        generator.shuffle(tasks)  # other work on the machine comes and goes
        for number, (fault, control) in enumerate(tasks):
            real = None if fault in ("none", "control") else fault
            name = names[number % len(names)]
            result = train(server.url, server, name, real, arguments.pairs, arguments.steps, control=control)
            result |= {"fault": "control" if control else real or "none"}
            results.append(result)
            result["low"], result["high"] = interval(result["differences_ms"], generator)
            result["median"] = statistics.median(result["differences_ms"])
            print(
                f"{result['fault']:<16} {name:<9} asked {result['rounds']:4d} times  longest step "
                f"{result['median']:+.2f} ms [{result['low']:+.2f}, {result['high']:+.2f}] of "
                f"{result['quiet_longest_ms']:.2f}  longest call {result['longest_call_ms']:.2f} ms  {result['why']}",
                file=sys.stderr,
            )
    finally:
        server.close()
    controls = [result for result in results if result["fault"] == "control"]
    asked = [result for result in results if result["fault"] != "control"]
    worst = max(asked, key=lambda result: result["low"])
    pooled = [value for result in asked for value in result["differences_ms"]]
    low, high = interval(pooled, generator)
    figures = {
        "faults": len({result["fault"] for result in asked} - {"none"}),
        "training_interrupted": sum(result["interrupted"] for result in results),
        "max_step_delay_ms": round(max(0.0, worst["low"]), 3),
        "max_step_delay_fault": worst["fault"],
        "largest_median_ms": round(max(result["median"] for result in asked), 3),
        "noise_ms": round(max(abs(result["median"]) for result in controls), 3) if controls else None,
        "median_step_delay_ms": round(statistics.median(pooled), 3),
        "median_step_delay_ms_95": [round(low, 3), round(high, 3)],
        "max_call_ms": round(statistics.median(result["longest_call_ms"] for result in asked), 3),
        "calls": sum(result["calls"] for result in asked),
        "rounds": sum(result["rounds"] for result in asked),
        "n": len(pooled),
    }
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
