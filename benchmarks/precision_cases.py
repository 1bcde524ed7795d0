"""Trainings with different precision plugins, and the time of their optimizer steps."""

from __future__ import annotations

import gc
import multiprocessing
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import lightning.pytorch as pl
import torch
from compression_models import interval
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from turns import Turns

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 1e-3),
    "adamw-fused": lambda parameters: torch.optim.AdamW(parameters, 1e-3, fused=True),
}
CLIPPINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "norm": {"gradient_clip_val": 1.0, "gradient_clip_algorithm": "norm"},
    "value": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
}
WIDTH, DEPTH, BATCH = {"cpu": 128, "cuda": 4096}, {"cpu": 2, "cuda": 6}, {"cpu": 16, "cuda": 64}
BLOCKS, STEPS = 2, {"cpu": 6, "cuda": 25}  # measured blocks per session, and optimizer steps per block


class TimedTurns(Turns):
    """Measure blocks of steps: wall time on a GPU, CPU time of the thread on a CPU."""

    def __init__(self, trainings: int, blocks: int, size: int, device: str) -> None:
        super().__init__(trainings, blocks + 1)
        self._size, self._on_gpu = size, device == "cuda"
        self._marks: list[list[float]] = [[] for _ in range(trainings)]
        self.seconds: list[list[float]] = [[] for _ in range(trainings)]

    def step(self, number: int) -> None:
        """Record the start of an optimizer step, and wait if the turn of the training is over."""
        if self.ended:
            return
        marks = self._marks[number]
        if self._on_gpu and len(marks) == self._size:
            torch.cuda.synchronize()
        marks.append(time.perf_counter() if self._on_gpu else time.thread_time())
        if len(marks) <= self._size:
            return
        if self._on_gpu:
            self.seconds[number].append((marks[-1] - marks[0]) / self._size)
        else:  # without the first step, which starts with the data of another training in the CPU caches
            self.seconds[number].append(statistics.median(b - a for a, b in pairwise(marks[1:])))
        marks.clear()
        self.pass_on(number)
        if not self.ended:
            marks.append(time.perf_counter() if self._on_gpu else time.thread_time())


class Endless(IterableDataset[Any]):
    """Repeat the same batches until ``ended`` returns true."""

    def __init__(self, batches: Sequence[Any], ended: Callable[[int], bool]) -> None:
        self.batches, self.ended = batches, ended

    def __iter__(self) -> Any:
        number = 0
        while not self.ended(number):
            yield self.batches[number % len(self.batches)]
            number += 1


class Lit(pl.LightningModule):
    """Classify, and call ``on_step`` at the start of each optimizer step."""

    def __init__(
        self, network: nn.Module, optimizer: str, accumulation: int, on_step: Callable[[], None], uses: int = 1
    ) -> None:
        super().__init__()
        self.network, self.chosen, self.accumulation, self.on_step, self.uses = (
            network,
            optimizer,
            accumulation,
            on_step,
            uses,
        )
        self.losses: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss."""
        if batch_idx % self.accumulation == 0:
            self.on_step()
        x, y = batch
        for _ in range(self.uses - 1):
            x = x + self.network[:-1](x)
        loss = nn.functional.cross_entropy(self.network(x).float(), y)
        self.losses = [*self.losses[-7:], loss.detach()]
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return OPTIMIZERS[self.chosen](self.parameters())


def layers(device: str) -> nn.Module:
    """Return linear layers, layer norms and a head, with fixed initial weights."""
    torch.manual_seed(0)
    width = WIDTH[device]
    blocks = [
        module for _ in range(DEPTH[device]) for module in (nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU())
    ]
    return nn.Sequential(*blocks, nn.Linear(width, 10))


def batches(device: str) -> list[tuple[Tensor, Tensor]]:
    """Return eight batches with classes that can be learned."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(BATCH[device], WIDTH[device], generator=generator) for _ in range(8)]
    return [(x, x[:, :10].argmax(1)) for x in images]


def trainer(plugin: Any, device: str, **options: Any) -> pl.Trainer:
    """Return a Trainer that writes no files. Without a plugin, it trains in float32."""
    quiet = ("enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        plugins=[] if plugin is None else [plugin],
        logger=False,
        default_root_dir=tempfile.gettempdir(),
        **dict.fromkeys(quiet, False),
        **{"max_epochs": 1, **options},
    )


class Case:
    """One training: a plugin, an optimizer, and the options of its Trainer."""

    def __init__(
        self, plugin: Callable[[], Any], optimizer: str, accumulation: int, clipping: str, device: str, uses: int = 1
    ) -> None:
        self.plugin, self.optimizer, self.accumulation, self.device = plugin, optimizer, accumulation, device
        self.clipping, self.uses = clipping, uses
        self.made: Any = None
        self.module: Lit | None = None

    def fit(self, on_step: Callable[[], None], ended: Callable[[int], bool]) -> None:
        """Train until ``ended`` returns true, and store the plugin and the module."""
        self.made = self.plugin()
        self.module = Lit(layers(self.device), self.optimizer, self.accumulation, on_step, self.uses)
        fit = trainer(self.made, self.device, accumulate_grad_batches=self.accumulation, **CLIPPINGS[self.clipping])
        fit.fit(self.module, DataLoader(Endless(batches(self.device), ended), batch_size=None))

    def short(self, steps: int = 12) -> None:
        """Train for ``steps`` optimizer steps."""
        self.fit(lambda: None, lambda number: number >= steps * self.accumulation)

    def loss(self) -> float:
        """Return the mean loss of the last eight batches."""
        assert self.module is not None
        return float(torch.stack(self.module.losses).mean())

    def unsupported(self) -> bool:
        """Return whether Lightning rejects the optimizer with clipping."""
        try:
            self.short(1)
        except RuntimeError as error:
            if "does not allow for gradient clipping" not in str(error):
                raise
            return True
        return False

    def peak(self) -> float:
        """Return the peak memory in bytes: allocated on the GPU, or the resident set of a new process."""
        if self.device == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.short()
            return float(torch.cuda.max_memory_allocated())
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)

        def child() -> None:
            self.short()
            sender.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

        process = context.Process(target=child)
        process.start()
        sender.close()
        kilobytes = receiver.recv()
        process.join()
        return 1024.0 * float(kilobytes)


def take_turns(cases: Sequence[Case]) -> list[list[float]]:
    """Return the seconds per optimizer step of each block by case, without the first block (warm-up)."""
    device = cases[0].device
    turns, errors = TimedTurns(len(cases), BLOCKS, STEPS[device], device), []

    def train(number: int) -> None:
        turns.wait(number)
        try:
            cases[number].fit(lambda: turns.step(number), lambda _: turns.ended)
        except BaseException as error:
            errors.append(error)
            turns.end()
            raise

    threads = [threading.Thread(target=train, args=(number,)) for number in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [seconds[1:] for seconds in turns.seconds]


class Sessions:
    """Results of several sessions of the same cases."""

    def __init__(self, cases: Sequence[Case], number: int) -> None:
        self.n = number
        self._of: list[list[list[float]]] = []
        for session in range(number):  # alternate which training is created first
            order = slice(None, None, 1 if session % 2 == 0 else -1)
            self._of.append(take_turns(cases[order])[order])

    def ratio(self, name: str, above: int, below: int) -> dict[str, Any]:
        """Return the median ratio of two cases, and its interval."""
        values = [
            statistics.median(a / b for a, b in zip(found[above], found[below], strict=True)) for found in self._of
        ]
        return {name: round(statistics.median(values), 4), f"{name}_interval": interval(values)}

    def milliseconds(self, case: int) -> float:
        """Return the median time of an optimizer step."""
        return round(1e3 * statistics.median(seconds for found in self._of for seconds in found[case]), 3)
