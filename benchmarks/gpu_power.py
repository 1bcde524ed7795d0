"""Power of an NVIDIA GPU in training, while a run is held, and after it has exited.

    python benchmarks/gpu_power.py --json [--seconds 10] [--rest 60]

A process without CUDA reads the energy counter of the GPU. A second process trains a ResNet-50 in bfloat16, waits as in
a hold, frees its memory, waits again, and ends. Each figure is the mean power over ``--seconds``:

    rested_w        after ``--rest`` seconds in which nothing ran
    training_w      in training
    held_w          waiting between two steps, with the CUDA context and the memory of the training
    held_freed_w    the same after the memory is released
    exited_w        from 5 s after the end of the process
    hold_power      held_w over training_w: `hold_power` of the planner
    exit_power      exited_w over training_w: what a device that stays allocated draws
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from tests.helpers import resnet_step

SETTLE = 5.0
ROOT = Path(__file__).resolve().parents[1]


def work(seconds: float) -> None:
    """Train, hold, free the memory and end; each phase begins with a line to the other process."""
    steps = resnet_step.Steps("cuda")
    steps.run(SETTLE)
    for phase in ("training_w", "held_w", "held_freed_w"):
        if phase == "held_freed_w":
            del steps
            gc.collect()
            torch.cuda.empty_cache()
        if phase != "training_w":
            time.sleep(SETTLE)
        print(phase, flush=True)
        if phase == "training_w":
            steps.run(seconds + 1.0)
        else:
            time.sleep(seconds + 1.0)


def measure(seconds: float, rest: float) -> dict[str, object]:
    """Return the figures."""
    gpu = resnet_step.job_gpu()
    found: dict[str, object] = {}

    def mean_watts() -> float:
        return round(resnet_step.mean_watts(gpu, lambda: time.sleep(seconds))[0], 1)

    time.sleep(rest)
    found["rested_w"] = mean_watts()
    command = [sys.executable, __file__, "--work", "--seconds", str(seconds)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            found[line.strip()] = mean_watts()
    if process.returncode:
        raise SystemExit(process.returncode)
    time.sleep(SETTLE)
    found["exited_w"] = mean_watts()
    for name, part in (("hold_power", "held_w"), ("exit_power", "exited_w")):
        found[name] = round(float(str(found[part])) / float(str(found["training_w"])), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    parser.add_argument("--rest", type=float, default=60.0, help="seconds without work before the first one")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.seconds)
        return
    if not torch.cuda.is_available():  # creates no CUDA context
        found: dict[str, object] = {"reason": "needs an NVIDIA GPU"}
    else:
        found = measure(arguments.seconds, arguments.rest)
    print(json.dumps(found, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
