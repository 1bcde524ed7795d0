"""What the scripts share: the callbacks, and a record of batches and results that the benchmark compares."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

FOLDER = Path(__file__).resolve().parent
BATCHES, RESULTS, KILLED = FOLDER / "batches.jsonl", FOLDER / "results.jsonl", FOLDER / "killed"
_trainers: list[Any] = []


class Recorder(pl.Callback):
    """Records the loss of each batch; kills the process once, after the batch that the benchmark asks for."""

    def setup(self, trainer, pl_module, stage):
        if stage == "fit":
            _trainers[:] = [trainer]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        loss = None if loss is None else float(torch.as_tensor(loss).detach().double().sum()).hex()
        line = [type(pl_module).__name__, trainer.current_epoch, batch_idx, trainer.global_step, loss]
        with open(BATCHES, "a") as file:
            file.write(json.dumps(line) + "\n")
        kill_at = int(os.environ.get("KILL_AT", "0"))
        if kill_at and not KILLED.exists() and len(BATCHES.read_text().splitlines()) >= kill_at:
            KILLED.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def callbacks() -> list[Any]:
    """Return the callbacks for the Trainer; those of Lightning Green, unless the benchmark asks for none."""
    if os.environ.get("GREEN") == "none":
        return [Recorder()]
    from lightning_green import CarbonScheduler, EmissionsTracker

    return [
        EmissionsTracker(grid=str(FOLDER / "trace.csv"), meter=100.0),
        CarbonScheduler(deadline="20d", resume_cost=0.001, hold_power=0.9, checkpoint_every="90m"),
        Recorder(),
    ]


def report(weights: Any, **values: Any) -> None:
    """Record the final weights of a module, the logged metrics of its Trainer, and other values such as a forecast."""
    line: dict[str, Any] = {"weights": digest(dict(weights.state_dict()))}
    if _trainers:
        metrics = _trainers[0].callback_metrics
        line["metrics"] = {name: float(value).hex() for name, value in sorted(metrics.items())}
        line["epoch"], line["step"] = _trainers[0].current_epoch, _trainers[0].global_step
    line |= {name: digest(value) for name, value in values.items()}
    with open(RESULTS, "a") as file:
        file.write(json.dumps(line) + "\n")


def wave(length: int, scale: float = 6.0, phase: float = 0.0, generator: Any = None) -> Any:
    """Return a sine with noise as an array."""
    generator = np.random.default_rng(0) if generator is None else generator
    return np.sin(np.arange(length) / scale + phase) + generator.normal(0, 0.1, length)


def frame(series: int) -> Any:
    """Return a data frame of neuralforecast with several daily series."""
    import pandas as pd  # not every project installs it

    generator, days = np.random.default_rng(0), pd.date_range("2020-01-01", periods=120, freq="D")
    parts = [{"unique_id": f"series{n}", "ds": days, "y": wave(120, 5.0, n, generator)} for n in range(series)]
    return pd.concat(pd.DataFrame(part) for part in parts)


def digest(value: Any) -> str:
    """Return a digest of nested tensors, arrays and numbers."""
    found = hashlib.sha256()
    _update(found, value)
    return found.hexdigest()[:16]


def _update(found: Any, value: Any) -> None:
    if isinstance(value, dict):
        for name in sorted(value, key=str):
            found.update(str(name).encode())
            _update(found, value[name])
    elif isinstance(value, (list, tuple)):
        for one in value:
            _update(found, one)
    elif isinstance(value, torch.Tensor):
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif hasattr(value, "tolist"):  # an array; also of objects, of which the bytes are addresses
        found.update(f"{value.dtype}{value.shape}{value.tolist()}".encode())
    else:
        found.update(repr(value).encode())
