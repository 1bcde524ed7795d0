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
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightning.pytorch as pl
import torch
from step_times import STEP_SECONDS, interval, take_turns, work_for

from lightning_green import CarbonScheduler, EmissionsTracker
from lightning_green.resume.training_state import ExactState

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
