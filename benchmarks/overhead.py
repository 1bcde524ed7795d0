"""What the two callbacks cost a training while they have nothing to do.

    python benchmarks/overhead.py --json [--device cpu|cuda]

`EmissionsTracker` and `CarbonScheduler` together, with a real meter, a grid, a deadline and a CSV log. Figures:

    steps             for steps of about 1, 2.5, 10 and 60 ms:
      thread_ratio      processor time of the training thread in a step with our hooks over one without
      wall_ratio        the same of the time that passes
      added_us          the difference of the processor times in microseconds
      step_ms           time that passes in a step without our hooks
    other_threads_ms  processor time of all other threads of ours (sampler, poller, heartbeat) per second of training
    idle_step_us      microseconds in our own code on a step on which nothing is decided and nothing logged, timed where
                      it is called: the hooks of both callbacks and the boundary after the batch
    calls             function calls in a step with the two callbacks, of Python and of C, and with two empty ones: the
                      only figure that does not depend on the machine

A step is what lies between two calls of `training_step`: loader, hooks, loops and optimizer are in it. In one training,
our hooks do nothing in every second block of steps. Two trainings would differ by more than the hooks cost, because the
places of their objects in memory move their steps by some per cent. What is not switched off is the counting of batches
and of the wait for them: six of the function calls. On a GPU nothing waits for the device within a block. A block
counts by the median of its steps but the first two, a session by the median of its pairs of neighboring blocks, a
figure is the median of ``n`` sessions, and its interval holds 95 % of the medians of 2,000 bootstrap samples of them.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import logging
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from step_times import BATCH, WIDTH, Blocks, Net, interval, work_for
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import CarbonScheduler, EmissionsTracker
from lightning_green.resume.training_state import ExactState
from lightning_green.run.coordinator import close_current_run

STEPS_MS = (1.0, 2.5, 10.0, 60.0)
BLOCK_MS = 60.0
"""About how long a block lasts."""
NEVER = 10**9
HOOKS = (
    (EmissionsTracker, "on_train_batch_end"),
    (CarbonScheduler, "on_train_batch_start"),
    (CarbonScheduler, "on_train_batch_end"),
    (ExactState, "_after_batch"),  # last in a step
)


class InPlace:
    """Adds up, while it is entered, the seconds that each step spends in our code."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self._step = 0.0

    def __enter__(self) -> InPlace:
        self._originals = [(cls, name, cls.__dict__[name]) for cls, name in HOOKS]
        for cls, name, original in self._originals:
            setattr(cls, name, self._timed(original, last=name == "_after_batch"))
        return self

    def __exit__(self, *_) -> None:
        for cls, name, original in self._originals:
            setattr(cls, name, original)

    def _timed(self, original: Callable, last: bool) -> Callable:
        def timed(*args):
            began = time.perf_counter()
            original(*args)
            self._step += time.perf_counter() - began
            if last:
                self.steps.append(self._step)
                self._step = 0.0

        return timed


def green(meter: str) -> list[pl.Callback]:
    """Return the two callbacks; as holding draws full power here, the plan is always to run on."""
    scheduler = CarbonScheduler(grid="typical:DE", deadline="36h", on_pause="hold", hold_power=1.0)
    return [EmissionsTracker(meter=meter), scheduler]


class OtherThreads:
    """Processor time of the threads of this package, which run all the time, per second that passes."""

    def __init__(self) -> None:
        self._first: dict[int, tuple[float, float]] = {}
        self._rates: dict[int, float] = {}

    def read_clocks(self) -> None:
        """Read the clock of each thread that is alive."""
        for thread in threading.enumerate():
            if thread.name.startswith("lightning-green") and thread.ident is not None:
                now, used = time.perf_counter(), time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
                began, before = self._first.setdefault(thread.ident, (now, used))
                if now > began:
                    self._rates[thread.ident] = (used - before) / (now - began)

    def seconds_per_second(self) -> float:
        """Return the processor time of all threads together."""
        return sum(self._rates.values())


class Switched:
    """Times blocks of steps of one training, with our hooks and without them alternately.

    Enter it before the fit: the loops keep the method that is called after a batch.
    """

    def __init__(self, block: int, warm_up: int) -> None:
        self.block, self._left = block, warm_up
        self.blocks = {True: Blocks([], []), False: Blocks([], [])}
        self.others = OtherThreads()
        self._originals = [(cls, name, cls.__dict__[name]) for cls, name in HOOKS]
        self._on = True
        self._steps: list[tuple[float, float]] = []
        self._last: tuple[float, float] | None = None

    def __enter__(self) -> Switched:
        for cls, name, original in self._originals:
            setattr(cls, name, self._switchable(original))
        return self

    def __exit__(self, *_: object) -> None:
        for cls, name, original in self._originals:
            setattr(cls, name, original)

    def step_began(self) -> None:
        """Note that a step begins."""
        wall, thread = time.perf_counter(), time.thread_time()
        self._left -= 1
        if self._left > 0:
            return
        if self._last is not None:
            self._steps.append((wall - self._last[0], thread - self._last[1]))
        if len(self._steps) == self.block:
            for times, steps in zip(self.blocks[self._on], zip(*self._steps[2:], strict=True), strict=True):
                times.append(statistics.median(steps))
            self._steps, self._on = [], not self._on
            self.others.read_clocks()
        self._last = time.perf_counter(), time.thread_time()

    def _switchable(self, original: Callable[..., object]) -> Callable[..., None]:
        def hook(*args: object) -> None:
            if self._on:
                original(*args)

        return hook


def train(callbacks: list[pl.Callback], begins: Callable[[], None], steps: int, work: int, device: str) -> None:
    """Train the network of the other benchmarks for one epoch."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator=device,
            devices=1,
            callbacks=callbacks,
            logger=CSVLogger(folder),
            log_every_n_steps=NEVER,
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = TensorDataset(torch.randn(BATCH * steps, WIDTH))
        trainer.fit(Net(work, begins), DataLoader(data, batch_size=BATCH, shuffle=True))
        close_current_run()


def with_interval(name: str, values: list[float]) -> dict[str, Any]:
    """Return the median of the sessions and its interval, as two entries."""
    low, high = interval(values)
    return {name: round(statistics.median(values), 4), f"{name}_interval": [round(low, 4), round(high, 4)]}


def steps_of(milliseconds: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of steps that take about so long, over all sessions."""
    work, block = work_for(milliseconds / 1e3, arguments.device), max(6, round(BLOCK_MS / milliseconds))
    thread, wall, added, plain, others = [], [], [], [], []
    warm_up = max(10, round(1e3 / milliseconds))  # about a second: the first decision is behind it
    for _ in range(arguments.sessions):
        steps = warm_up + 2 * arguments.pairs * block + 1
        with Switched(block, warm_up) as switched:
            train(green(arguments.meter), switched.step_began, steps, work, arguments.device)
        with_, without = switched.blocks[True], switched.blocks[False]
        pairs = list(zip(with_.thread, without.thread, strict=False))
        thread.append(statistics.median(a / b for a, b in pairs))
        added.append(1e6 * statistics.median(a - b for a, b in pairs))
        wall.append(statistics.median(a / b for a, b in zip(with_.wall, without.wall, strict=False)))
        plain += without.wall
        others.append(1e3 * switched.others.seconds_per_second())
    return {
        **with_interval("thread_ratio", thread),
        **with_interval("wall_ratio", wall),
        **with_interval("added_us", added),
        "step_ms": round(1e3 * statistics.median(plain), 3),
        "other_threads_ms": round(statistics.median(others), 3),
        "blocks": f"{arguments.pairs} pairs of {block} steps",
    }


def idle_step(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the microseconds in our own code, on steps as small as the loops allow."""
    found = []
    for _ in range(arguments.sessions):
        with InPlace() as in_place:
            train(green(arguments.meter), lambda: None, 500, 0, arguments.device)
        found.append(1e6 * statistics.median(in_place.steps))
    return with_interval("idle_step_us", found)


def calls_per_step(callbacks: list[pl.Callback], device: str) -> float:
    """Return the function calls from one step to the next, the median over windows of 50 steps."""
    profiles, count, warm_up, window, windows = [], 0, 200, 50, 9

    def begins() -> None:
        nonlocal count
        count += 1
        if count < warm_up or count % window:
            return
        if profiles:
            profiles[-1].disable()
        if len(profiles) < windows:
            profiles.append(cProfile.Profile())
            profiles[-1].enable()

    train(callbacks, begins, warm_up + (windows + 1) * window, 0, device)
    return statistics.median(sum(entry.callcount for entry in profile.getstats()) / window for profile in profiles)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last thing")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=30, help="pairs of blocks in a session")
    parser.add_argument("--steps-ms", type=float, nargs="*", default=STEPS_MS, help="lengths of the steps")
    parser.add_argument("--meter", default="auto")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    steps = {f"{length:g}": steps_of(length, arguments) for length in arguments.steps_ms}
    result = {"device": arguments.device, "n": arguments.sessions, "steps": steps, **idle_step(arguments)}
    result["calls"] = [
        round(calls_per_step(callbacks, arguments.device))
        for callbacks in (green(arguments.meter), [pl.Callback(), pl.Callback()])
    ]
    if arguments.json:
        print(json.dumps(result))
    else:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
