# ruff: noqa: D102
"""Step times of small trainings that are alive in one process and take turns.

A step is what lies between two calls of `training_step`: loader, hooks, loops and optimizer are in it. A block counts
by the median of its steps but the first, which finds the caches of another training.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from turns import Turns

STEP_SECONDS = 0.005
BATCH, WIDTH = 16, 16


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

    def step(self, number: int) -> None:
        """Note that a step of training ``number`` begins; wait here where its turn is over."""
        if self.ended:
            return
        wall, thread = time.perf_counter(), time.thread_time()
        if self._last[number][0]:
            self._steps[number].append((wall - self._last[number][0], thread - self._last[number][1]))
        if len(self._steps[number]) == self.block:
            for times, steps in zip(self.blocks[number], zip(*self._steps[number][1:], strict=True), strict=True):
                times.append(statistics.median(steps))
            self._steps[number] = []
            self.pass_on(number)
        self._last[number] = time.perf_counter(), time.thread_time()


class Net(pl.LightningModule):
    """A small network, and ``work`` passes over an array that fits the first cache: time that no neighbor moves.

    Args:
        work: Number of passes.
        begins: Called at the beginning of each step.
        on_device: Whether the array is on the device of the training, and the step waits for it.

    """

    def __init__(self, work: int, begins: Callable[[], None], on_device: bool = False) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
        array = torch.zeros(4096)
        self.work, self.begins = work, begins
        if on_device:
            self.register_buffer("array", array, persistent=False)
        else:
            self.array = array

    def training_step(self, batch, batch_idx):
        self.begins()
        for _ in range(self.work):
            self.array.sin_()
        if self.array.is_cuda:
            torch.cuda.synchronize()
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-4)


def take_turns(
    cases: Sequence[Callable[[], list[pl.Callback]]],
    rounds: int,
    block: int,
    work: int,
    log_every: int,
    around: Sequence[AbstractContextManager[object]] = (),
    accelerator: str = "cpu",
    on_device: bool = False,
) -> list[Blocks]:
    """Return the blocks of each case without the first, which is warm-up.

    Args:
        cases: Return the callbacks of each training.
        rounds: Blocks of each training, without the first.
        block: Steps of a block.
        work: Passes of ``Net`` in a step.
        log_every: Steps between two logged points.
        around: Contexts in which the trainings run, one for each.
        accelerator: Accelerator of the Trainers.
        on_device: Whether ``Net`` works and waits on the device.

    """
    from lightning_green.run.coordinator import close_current_run  # not part of the start of a training without it

    turns, errors = TimedTurns(len(cases), rounds + 1, block), []

    def train(number: int, folder: str) -> None:
        turns.wait(number)
        try:
            trainer = pl.Trainer(
                max_epochs=1,
                accelerator=accelerator,
                devices=1,
                callbacks=cases[number](),
                logger=CSVLogger(folder),
                log_every_n_steps=log_every,
                default_root_dir=folder,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            samples = torch.randn(BATCH * ((rounds + 1) * block + 1), WIDTH)
            model = Net(work, lambda: turns.step(number), on_device)
            with around[number] if around else nullcontext():
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
    return [Blocks(one.wall[1:], one.thread[1:]) for one in turns.blocks]


def work_for(seconds: float, accelerator: str = "cpu", on_device: bool = False) -> int:
    """Return the passes of ``Net`` with which a step takes about so long."""
    none, many = (
        statistics.median(take_turns([list], 5, 10, work, 50, accelerator=accelerator, on_device=on_device)[0].wall)
        for work in (0, 200)
    )
    return max(0, round(200 * (seconds - none) / max(1e-6, many - none)))


def interval(values: list[float]) -> list[float]:
    """Return the 95 % bootstrap interval of the median."""
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(2000))
    return [medians[50], medians[1949]]
