# ruff: noqa: D102
"""What the two callbacks cost a training while they have nothing to do.

    python benchmarks/overhead.py --json

`EmissionsTracker` and `CarbonScheduler` together, with a real meter, a grid, a deadline and a CSV log. The trainings
with and without them are alive in one process and take turns, a block of steps each, in an order that is reversed every
time, so that both see the same machine. Figures:

    step_time_ratio   time of a step of about 5 ms with the two callbacks over one without
    idle_step_us      microseconds of ours on a step on which nothing is decided and nothing logged: the difference
                      between the two callbacks and two that do nothing, with a step as small as Lightning's loops allow
    dispatch_us       what those two that do nothing cost: Lightning's own calls of the hooks of two more callbacks

A step is what lies between two calls of `training_step`: loader, hooks, loops and optimizer are in it. A block counts
by the median of its steps but the first, which finds the caches of another training; a figure is the median over `n`
pairs of neighbouring blocks, and its interval holds 95 % of the medians of 2,000 bootstrap samples of them. Blocks are
short because a shared machine changes its speed from one second to the next.
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

from lightning_green import CarbonScheduler, EmissionsTracker
from lightning_green.runtime.fit import close_current_run

STEP_SECONDS = 0.005
NEVER = 10**9


class Turns:
    """Lets several trainings take turns, ``block`` steps at a time, and times their steps."""

    def __init__(self, trainings: int, rounds: int, block: int) -> None:
        self.rounds, self.block = rounds, block
        forth = list(range(trainings))
        self._order = [number for turn in range(rounds) for number in (forth if turn % 2 == 0 else forth[::-1])]
        self._at, self._ended = 0, False
        self._mine = [threading.Semaphore(0) for _ in forth]
        self._last = [0.0] * trainings
        self._steps: list[list[float]] = [[] for _ in forth]
        self.medians: list[list[float]] = [[] for _ in forth]
        self._mine[self._order[0]].release()

    def wait(self, number: int) -> None:
        self._mine[number].acquire()

    def step(self, number: int) -> None:
        """Note that a step of training ``number`` begins; wait here where its turn is over."""
        if self._ended:
            return
        now = time.perf_counter()
        if self._last[number]:
            self._steps[number].append(now - self._last[number])
        if len(self._steps[number]) == self.block:
            self.medians[number].append(statistics.median(self._steps[number][1:]))
            self._steps[number] = []
            self._at += 1
            if self._at == len(self._order):
                self.end()
            elif (following := self._order[self._at]) != number:
                self._mine[following].release()
                self.wait(number)
        self._last[number] = time.perf_counter()

    def end(self) -> None:
        """Let everyone run to the end."""
        self._ended = True
        for semaphore in self._mine:
            semaphore.release()


class Net(pl.LightningModule):
    """A dense network whose forward pass is gone through ``passes`` times."""

    def __init__(self, width: int, passes: int, begins: Callable[[], None]) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        self.passes, self.begins = passes, begins

    def training_step(self, batch, batch_idx):
        self.begins()
        loss = self.net(batch[0]).square().mean()
        for _ in range(self.passes - 1):
            loss = loss + self.net(batch[0]).square().mean()
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-4)


class Nothing(pl.Callback):
    """Does nothing, in the hooks that ours are in."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pass


def green(meter: str) -> list[pl.Callback]:
    """Return the two callbacks; as holding draws full power here, the plan is always to run on."""
    scheduler = CarbonScheduler(grid="typical:DE", deadline="36h", on_pause="hold", hold_power=1.0)
    return [EmissionsTracker(meter=meter), scheduler]


def take_turns(
    cases: Sequence[Callable[[], list[pl.Callback]]], rounds: int, block: int, width: int, passes: int, log_every: int
) -> list[list[float]]:
    """Return for each case the median seconds of a step in each of its blocks; the first is left out, as warm-up."""
    turns, errors = Turns(len(cases), rounds + 1, block), []

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
            samples = torch.randn(16 * ((rounds + 1) * block + 1), width)
            model = Net(width, passes, lambda: turns.step(number))
            trainer.fit(model, DataLoader(TensorDataset(samples), batch_size=16, shuffle=True))
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


def passes_for(width: int) -> int:
    """Return how often the network is gone through in a step of about 5 ms."""
    one, many = (statistics.median(take_turns([list], 3, 30, width, passes, 50)[0]) for passes in (1, 21))
    return max(1, 1 + round((STEP_SECONDS - one) / max(1e-6, (many - one) / 20)))


def interval(values: list[float]) -> list[float]:
    """Return the 95 % bootstrap interval of the median."""
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(2000))
    return [medians[50], medians[1949]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last thing")
    parser.add_argument("--pairs", type=int, default=200, help="blocks of each training; 5 times as many when idle")
    parser.add_argument(
        "--block", type=int, default=20, help="steps of a block of the ratio; 5 times as many when idle"
    )
    parser.add_argument("--meter", default="auto")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    passes = passes_for(128)
    ours, plain = take_turns([lambda: green(arguments.meter), list], arguments.pairs, arguments.block, 128, passes, 50)
    ratios = [a / b for a, b in zip(ours, plain, strict=True)]
    cases = [lambda: green(arguments.meter), lambda: [Nothing(), Nothing()], list]
    idle, nothing, bare = take_turns(cases, arguments.pairs, 5 * arguments.block, 4, 1, NEVER)
    added = [(a - b) * 1e6 for a, b in zip(idle, nothing, strict=True)]
    dispatch = [(a - b) * 1e6 for a, b in zip(nothing, bare, strict=True)]
    result = {
        "step_time_ratio": statistics.median(ratios),
        "step_time_ratio_interval": interval(ratios),
        "idle_step_us": statistics.median(added),
        "idle_step_us_interval": interval(added),
        "dispatch_us": statistics.median(dispatch),
        "dispatch_us_interval": interval(dispatch),
        "n": arguments.pairs,
        "steps": arguments.pairs * arguments.block,
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
