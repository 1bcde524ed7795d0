# ruff: noqa: D102
"""What the two callbacks cost a training while they have nothing to do.

    python benchmarks/overhead.py --json [--device cpu|cuda]

`EmissionsTracker` and `CarbonScheduler` together, with a real meter, a grid, a deadline and a CSV log. The trainings
with and without them are alive in one process and take turns, a block of steps each, in an order that is reversed every
time, so that both see the same machine. Figures:

    steps             for steps of about 1, 2.5, 10 and 60 ms:
      thread_ratio      processor time of the training thread in a step with the two callbacks over one without
      wall_ratio        the same of the time that passes
      step_ms           time that passes in a step without them
    other_threads_ms  processor time of all other threads of ours (sampler, poller, heartbeat) per second of training
    idle_step_us      microseconds in our own code on a step on which nothing is decided and nothing logged, timed where
                      it is called: the hooks of both callbacks and the boundary after the batch
    added_us          processor time of the training thread that a step as small as Lightning's loops allow takes
                      longer, all in all: ours, and Lightning's own calls of the hooks of two more callbacks
    empty_us          the same with two empty callbacks: what Lightning takes for calling the hooks of any two

A step is what lies between two calls of `training_step`: loader, hooks, loops and optimizer are in it. Other processes
hardly change the processor time of a thread, so the figures to look at are those of the thread. On a GPU nothing waits
for the device within a block, as in a training. A block counts by the median of its steps but the first, which finds
the caches of another training. Where a training's objects happen to lie in memory moves its steps by some per cent, so
the trainings are started again in every one of `n` sessions; a session counts by the median of its pairs of neighboring
blocks, a figure is the median of the sessions, and its interval holds 95 % of the medians of 2,000 bootstrap samples of
them.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from turns import Turns

from lightning_green import CarbonScheduler, EmissionsTracker
from lightning_green.resume.training_state import ExactState
from lightning_green.run.coordinator import close_current_run

STEPS_MS = (1.0, 2.5, 10.0, 60.0)
BLOCK_MS = 60.0
"""About how long a block lasts."""
BATCH, WIDTH = 16, 16
NEVER = 10**9


class Blocks(NamedTuple):
    """Median seconds of a step in each block of one training."""

    wall: list[float]
    thread: list[float]


class TimedTurns(Turns):
    """Times the steps of each turn, ``block`` of them."""

    def __init__(self, trainings: int, rounds: int, block: int) -> None:
        super().__init__(trainings, rounds)
        self.rounds, self.block = rounds, block
        self._last = [(0.0, 0.0)] * trainings
        self._steps: list[list[tuple[float, float]]] = [[] for _ in range(trainings)]
        self.blocks = [Blocks([], []) for _ in range(trainings)]
        self.others = OtherThreads()

    def step(self, number: int) -> None:
        """Note that a step of training ``number`` begins; wait here where its turn is over."""
        if self.ended:
            return
        wall, thread = time.perf_counter(), time.thread_time()
        if self._last[number][0]:
            self._steps[number].append((wall - self._last[number][0], thread - self._last[number][1]))
        if len(self._steps[number]) == self.block:
            self.others.look()
            for times, steps in zip(self.blocks[number], zip(*self._steps[number][1:], strict=True), strict=True):
                times.append(statistics.median(steps))
            self._steps[number] = []
            self.pass_on(number)
        self._last[number] = time.perf_counter(), time.thread_time()


class OtherThreads:
    """Processor time of the threads of this package, which run all the time, per second that passes."""

    def __init__(self) -> None:
        self._first: dict[int, tuple[float, float]] = {}
        self._rates: dict[int, float] = {}

    def look(self) -> None:
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


class Net(pl.LightningModule):
    """A small network, and ``work`` passes over an array that fits the first cache: time that no neighbor moves."""

    def __init__(self, work: int, begins: Callable[[], None]) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
        self.array, self.work, self.begins = torch.zeros(4096), work, begins

    def training_step(self, batch, batch_idx):
        self.begins()
        for _ in range(self.work):
            self.array.sin_()
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-4)


class InPlace:
    """Adds up, while it is entered, the seconds that each step spends in our code."""

    OURS = (
        (EmissionsTracker, "on_train_batch_end"),
        (CarbonScheduler, "on_train_batch_start"),
        (CarbonScheduler, "on_train_batch_end"),
        (ExactState, "_after_batch"),  # last in a step
    )

    def __init__(self) -> None:
        self.steps: list[float] = []
        self._step = 0.0

    def __enter__(self) -> InPlace:
        self._originals = [(cls, name, cls.__dict__[name]) for cls, name in self.OURS]
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


def take_turns(
    cases: Sequence[Callable[[], list[pl.Callback]]], rounds: int, block: int, work: int, log_every: int, device: str
) -> tuple[list[Blocks], float]:
    """Return the blocks of each case without the first, which is warm-up, and the processor time of other threads."""
    turns, errors = TimedTurns(len(cases), rounds + 1, block), []

    def train(number: int, folder: str) -> None:
        turns.wait(number)
        try:
            trainer = pl.Trainer(
                max_epochs=1,
                accelerator=device,
                devices=1,
                callbacks=cases[number](),
                logger=CSVLogger(folder),
                log_every_n_steps=log_every,
                default_root_dir=folder,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            samples = torch.randn(BATCH * ((rounds + 1) * block + 1), WIDTH)
            model = Net(work, lambda: turns.step(number))
            trainer.fit(model, DataLoader(TensorDataset(samples), batch_size=BATCH, shuffle=True))
        except BaseException as error:
            errors.append(error)
            turns.end()
            raise

    with tempfile.TemporaryDirectory() as name:
        threads = [threading.Thread(target=train, args=(i, str(Path(name) / str(i)))) for i in range(len(cases))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        close_current_run()
    if errors:
        raise errors[0]
    return [Blocks(one.wall[1:], one.thread[1:]) for one in turns.blocks], turns.others.seconds_per_second()


def work_for(milliseconds: float, device: str) -> int:
    """Return the passes with which a step takes about so long."""
    none, many = (statistics.median(take_turns([list], 5, 10, work, 50, device)[0][0].thread) for work in (0, 200))
    return max(0, round(200 * (milliseconds / 1e3 - none) / max(1e-6, many - none)))


def compare(first: list[float], second: list[float]) -> float:
    """Return the median ratio of neighboring blocks."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def difference_us(first: list[float], second: list[float]) -> float:
    """Return the median difference of neighboring blocks in microseconds."""
    return 1e6 * statistics.median(a - b for a, b in zip(first, second, strict=True))


def interval(values: list[float]) -> list[float]:
    """Return the 95 % bootstrap interval of the median."""
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(2000))
    return [medians[50], medians[1949]]


def with_interval(name: str, values: list[float]) -> dict[str, Any]:
    """Return the median of the sessions and its interval, as two entries."""
    low, high = interval(values)
    return {name: round(statistics.median(values), 4), f"{name}_interval": [round(low, 4), round(high, 4)]}


def steps_of(milliseconds: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of steps that take about so long, over all sessions."""
    device, cases = arguments.device, [lambda: green(arguments.meter), list]
    work, block = work_for(milliseconds, device), max(4, round(BLOCK_MS / milliseconds))
    thread, wall, plain, others = [], [], [], []
    for session in range(arguments.sessions):
        # which of them is made first, and lies first in memory, goes by turns
        order = slice(None, None, 1 if session % 2 == 0 else -1)
        blocks, busy = take_turns(cases[order], arguments.pairs, block, work, 50, device)
        with_, without = blocks[order]
        thread.append(compare(with_.thread, without.thread))
        wall.append(compare(with_.wall, without.wall))
        plain += without.wall
        others.append(1e3 * busy)
    return {
        **with_interval("thread_ratio", thread),
        **with_interval("wall_ratio", wall),
        "step_ms": round(1e3 * statistics.median(plain), 3),
        "other_threads_ms": round(statistics.median(others), 3),
        "blocks": f"{arguments.pairs} of {block} steps",
    }


def smallest_steps(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures in microseconds, on steps as small as the loops allow."""
    device, pairs, block = arguments.device, 5 * arguments.pairs, 10
    cases = [lambda: green(arguments.meter), list, lambda: [pl.Callback(), pl.Callback()]]
    added, empty, ours, bare = [], [], [], []
    for session in range(arguments.sessions):
        order = slice(None, None, 1 if session % 2 == 0 else -1)
        with_, without, others = take_turns(cases[order], pairs, block, 0, NEVER, device)[0][order]
        added.append(difference_us(with_.thread, without.thread))
        empty.append(difference_us(others.thread, without.thread))
        bare += without.thread
        with InPlace() as in_place:
            take_turns(cases[:2], pairs, block, 0, NEVER, device)
        ours.append(1e6 * statistics.median(in_place.steps))
    return {
        **with_interval("idle_step_us", ours),
        **with_interval("added_us", added),
        **with_interval("empty_us", empty),
        "smallest_step_us": round(1e6 * statistics.median(bare), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last thing")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=10, help="blocks of a training in a session; 5 times as many idle")
    parser.add_argument("--steps-ms", type=float, nargs="*", default=STEPS_MS, help="lengths of the steps")
    parser.add_argument("--meter", default="auto")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    steps = {f"{length:g}": steps_of(length, arguments) for length in arguments.steps_ms}
    result = {"device": arguments.device, "n": arguments.sessions, "steps": steps, **smallest_steps(arguments)}
    if arguments.json:
        print(json.dumps(result))
    else:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
