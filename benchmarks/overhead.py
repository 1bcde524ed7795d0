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
    calls             function calls in a step with the two callbacks, of Python and of C, and with two empty ones: the
                      only figure that does not depend on the machine

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
import cProfile
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from step_times import BATCH, WIDTH, Net, interval, take_turns, work_for
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import CarbonScheduler, EmissionsTracker
from lightning_green.resume.training_state import ExactState
from lightning_green.run.coordinator import close_current_run

STEPS_MS = (1.0, 2.5, 10.0, 60.0)
BLOCK_MS = 60.0
"""About how long a block lasts."""
NEVER = 10**9


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


def compare(first: list[float], second: list[float]) -> float:
    """Return the median ratio of neighboring blocks."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def difference_us(first: list[float], second: list[float]) -> float:
    """Return the median difference of neighboring blocks in microseconds."""
    return 1e6 * statistics.median(a - b for a, b in zip(first, second, strict=True))


def with_interval(name: str, values: list[float]) -> dict[str, Any]:
    """Return the median of the sessions and its interval, as two entries."""
    low, high = interval(values)
    return {name: round(statistics.median(values), 4), f"{name}_interval": [round(low, 4), round(high, 4)]}


def steps_of(milliseconds: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of steps that take about so long, over all sessions."""
    device, cases = arguments.device, [lambda: green(arguments.meter), list]
    work, block = work_for(milliseconds / 1e3, device), max(4, round(BLOCK_MS / milliseconds))
    thread, wall, plain, others = [], [], [], []
    for session in range(arguments.sessions):
        # which of them is made first, and lies first in memory, goes by turns
        order = slice(None, None, 1 if session % 2 == 0 else -1)
        found = take_turns(cases[order], arguments.pairs, block, work, 50, accelerator=device)
        with_, without = found.blocks[order]
        thread.append(compare(with_.thread, without.thread))
        wall.append(compare(with_.wall, without.wall))
        plain += without.wall
        others.append(1e3 * found.others)
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
        with_, without, others = take_turns(cases[order], pairs, block, 0, NEVER, accelerator=device).blocks[order]
        added.append(difference_us(with_.thread, without.thread))
        empty.append(difference_us(others.thread, without.thread))
        bare += without.thread
        with InPlace() as in_place:
            take_turns(cases[:2], pairs, block, 0, NEVER, accelerator=device)
        ours.append(1e6 * statistics.median(in_place.steps))
    return {
        **with_interval("idle_step_us", ours),
        **with_interval("added_us", added),
        **with_interval("empty_us", empty),
        "smallest_step_us": round(1e6 * statistics.median(bare), 1),
    }


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
        samples = torch.randn(BATCH * (warm_up + (windows + 1) * window), WIDTH)
        trainer.fit(Net(0, begins), DataLoader(TensorDataset(samples), batch_size=BATCH, shuffle=True))
        close_current_run()
    return statistics.median(sum(entry.callcount for entry in profile.getstats()) / window for profile in profiles)


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
