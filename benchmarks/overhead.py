# ruff: noqa: D102
"""What the two callbacks cost a training while they have nothing to do.

    python benchmarks/overhead.py --json

`EmissionsTracker` and `CarbonScheduler` together, with a real meter, a grid, a deadline and a CSV log. The trainings
with and without them are alive in one process and take turns, a block of steps each, in an order that is reversed every
time, so that both see the same machine. Figures:

    step_time_ratio   time of a step of about 5 ms with the two callbacks over one without
    idle_step_us      microseconds in our own code on a step on which nothing is decided and nothing logged, timed where
                      it is called: the hooks of both callbacks and the boundary after the batch
    added_us          microseconds that a step as small as Lightning's loops allow takes longer, all in all: ours, and
                      Lightning's own calls of the hooks of two more callbacks
    empty_us          the same with two empty callbacks: what Lightning takes for calling the hooks of any two

A step is what lies between two calls of `training_step`: loader, hooks, loops and optimizer are in it. A block counts
by the median of its steps but the first, which finds the caches of another training. Where a training's objects happen
to lie in memory moves its steps by some per cent, so the trainings are started again in every one of `n` sessions; a
session counts by the median of its pairs of neighboring blocks, a figure is the median of the sessions, and its
interval holds 95 % of the medians of 2,000 bootstrap samples of them.
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

STEP_SECONDS = 0.005
BATCH, WIDTH = 16, 16
NEVER = 10**9


class TimedTurns(Turns):
    """Times the steps of each turn, ``block`` of them."""

    def __init__(self, trainings: int, rounds: int, block: int) -> None:
        super().__init__(trainings, rounds)
        self.rounds, self.block = rounds, block
        self._last = [0.0] * trainings
        self._steps: list[list[float]] = [[] for _ in range(trainings)]
        self.medians: list[list[float]] = [[] for _ in range(trainings)]

    def step(self, number: int) -> None:
        """Note that a step of training ``number`` begins; wait here where its turn is over."""
        if self.ended:
            return
        now = time.perf_counter()
        if self._last[number]:
            self._steps[number].append(now - self._last[number])
        if len(self._steps[number]) == self.block:
            self.medians[number].append(statistics.median(self._steps[number][1:]))
            self._steps[number] = []
            self.pass_on(number)
        self._last[number] = time.perf_counter()


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
    cases: Sequence[Callable[[], list[pl.Callback]]], rounds: int, block: int, work: int, log_every: int
) -> list[list[float]]:
    """Return for each case the median seconds of a step in each of its blocks; the first is left out, as warm-up."""
    turns, errors = TimedTurns(len(cases), rounds + 1, block), []

    def train(number: int, folder: str) -> None:
        turns.wait(number)
        try:
            trainer = pl.Trainer(
                max_epochs=1,
                accelerator="cpu",
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
    return [medians[1:] for medians in turns.medians]


def work_for(seconds: float) -> int:
    """Return the passes with which a step takes about so long."""
    none, many = (statistics.median(take_turns([list], 5, 10, work, 50)[0]) for work in (0, 200))
    return max(0, round(200 * (seconds - none) / max(1e-6, many - none)))


def interval(values: list[float]) -> list[float]:
    """Return the 95 % bootstrap interval of the median."""
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(2000))
    return [medians[50], medians[1949]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last thing")
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=10, help="blocks of a training in a session; 5 times as many idle")
    parser.add_argument("--block", type=int, default=10, help="steps of a block")
    parser.add_argument("--meter", default="auto")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    work, cases = work_for(STEP_SECONDS), [lambda: green(arguments.meter), list]
    smallest = [*cases, lambda: [pl.Callback(), pl.Callback()]]
    ratios, added, empty, ours, plain, bare = [], [], [], [], [], []
    for session in range(arguments.sessions):
        # which of them is made first, and lies first in memory, goes by turns
        order = slice(None, None, 1 if session % 2 == 0 else -1)
        with_, without = take_turns(cases[order], arguments.pairs, arguments.block, work, 50)[order]
        ratios.append(statistics.median(a / b for a, b in zip(with_, without, strict=True)))
        plain += without
        with_, without, others = take_turns(smallest[order], 5 * arguments.pairs, arguments.block, 0, NEVER)[order]
        added.append(1e6 * statistics.median(a - b for a, b in zip(with_, without, strict=True)))
        empty.append(1e6 * statistics.median(a - b for a, b in zip(others, without, strict=True)))
        bare += without
        with InPlace() as in_place:
            take_turns(cases, 5 * arguments.pairs, arguments.block, 0, NEVER)
        ours.append(1e6 * statistics.median(in_place.steps))
    result = {
        "step_time_ratio": statistics.median(ratios),
        "step_time_ratio_interval": interval(ratios),
        "idle_step_us": statistics.median(ours),
        "idle_step_us_interval": interval(ours),
        "added_us": statistics.median(added),
        "added_us_interval": interval(added),
        "empty_us": statistics.median(empty),
        "empty_us_interval": interval(empty),
        "n": arguments.sessions,
        "steps": arguments.sessions * arguments.pairs * arguments.block,
        "step_ms": statistics.median(plain) * 1e3,
        "smallest_step_us": statistics.median(bare) * 1e6,
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:<26}{value}")


if __name__ == "__main__":
    main()
