# ruff: noqa: D101, D102
"""Cost of an exit, of a resume and of an idle ExactResume, relative to Lightning's checkpoints in the same process.

    python benchmarks/resume.py --json

A dense network with Adam, of 10 M and of 100 M parameters; alternating pairs in alternating order. Figures:

    free_ratio_10m, _100m     time from the decision to the free device: our `save` (gather, write, fsync, rename) over
                              Lightning's `save_checkpoint` followed by an fsync of the same file
    resume_ratio_10m, _100m   time from the start of `fit` to the end of the first new step: ours over
                              `fit(ckpt_path=...)`
    fsync_s_100m              seconds of the fsync alone, of a file of the size of the 100 M checkpoint, median
    skip_growth               time to the first batch when 90 % of an epoch of map-style data is skipped, over 10 %
    step_ratio                time of a step with ExactResume over one without, between two saves

Each ratio is the median of the ratios of the pairs, with the 95 % interval of 2,000 bootstrap samples and `n` pairs.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_green import EmissionsTracker, ExactResume
from lightning_green.resume.loaders import count_batches
from lightning_green.run.coordinator import close_current_run

PARTS = ("10m", "100m", "skip", "step")


class Dense(pl.LightningModule):
    """Layers of one size, ``width`` squared each."""

    def __init__(self, parameters: int) -> None:
        super().__init__()
        layers = 10
        self.width = int((parameters / layers) ** 0.5)
        self.net = nn.Sequential(*(nn.Linear(self.width, self.width, bias=False) for _ in range(layers)))

    def training_step(self, batch, batch_idx):
        return self.net(batch[0].expand(-1, self.width)).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-5)


class Timed(pl.Callback):
    """Records the end of each step; stops after ``leave_after`` steps of this process, if given."""

    def __init__(self, leave_after: int | None = None, act: Callable | None = None) -> None:
        self.leave_after, self.act, self.ends = leave_after, act, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.ends.append(time.perf_counter())
        if self.act is not None:
            self.act(trainer)
        if len(self.ends) == self.leave_after:
            raise _Leave


class _Leave(Exception):  # noqa: N818 - not an error
    pass


def trainer_of(folder: Path, callbacks: list[pl.Callback], steps: int) -> pl.Trainer:
    return pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=True,
    )


def data(count: int = 64) -> DataLoader:
    return DataLoader(TensorDataset(torch.randn(count, 1)), batch_size=1, shuffle=True)


def fit(trainer: pl.Trainer, model: pl.LightningModule, **kwargs) -> None:
    try:
        trainer.fit(model, data(), **kwargs)
    except _Leave:
        pass
    finally:
        close_current_run()


def leaving(parameters: int, folder: Path, pairs: int) -> tuple[list[float], list[float], list[float], Path]:
    """Return seconds of our saves, of Lightning's, of fsyncs alone, and a checkpoint to continue from."""
    ours, theirs, syncs = [], [], []
    plain = folder / "plain.ckpt"
    exact = ExactResume(every=None)

    def lightning_saves(trainer) -> None:
        began = time.perf_counter()
        trainer.save_checkpoint(plain)
        synced = time.perf_counter()
        _fsync(plain)
        theirs.append(time.perf_counter() - began)
        syncs.append(time.perf_counter() - synced)

    def we_save() -> None:
        began = time.perf_counter()
        exact._fit.state.save("batch", "exit")
        ours.append(time.perf_counter() - began)

    def both(trainer) -> None:
        if trainer.global_step < 2:
            return
        first, second = (we_save, lambda: lightning_saves(trainer))
        if trainer.global_step % 2:
            first, second = second, first
        first()
        second()

    os.environ["LIGHTNING_GREEN_RUN_DIR"] = str(folder / "run")
    fit(
        trainer_of(folder, [exact, EmissionsTracker(meter=10.0), Timed(pairs + 2, both)], pairs + 10), Dense(parameters)
    )
    return ours[1:], theirs[1:], syncs[1:], plain


def _fsync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.close(file)


def returning(parameters: int, folder: Path, plain: Path, pairs: int) -> tuple[list[float], list[float]]:
    """Return seconds from the start of ``fit`` to the first new step: ours, and with Lightning's ``ckpt_path``."""
    ours, theirs = [], []
    os.environ["LIGHTNING_GREEN_RESUME"] = "1"
    for number in range(pairs + 1):
        for mine in (True, False) if number % 2 else (False, True):
            timed = Timed(1)
            green = [ExactResume(every=None), EmissionsTracker(meter=10.0)] if mine else []
            trainer, model = trainer_of(folder, [*green, timed], pairs + 10), Dense(parameters)
            gc.collect()  # a Trainer has reference cycles: collect the previous one before the measurement
            began = time.perf_counter()
            fit(trainer, model, **({} if mine else {"ckpt_path": plain}))
            (ours if mine else theirs).append(timed.ends[0] - began)
            del trainer, model
    return ours[1:], theirs[1:]


def stepping(folder: Path, blocks: int, steps: int = 100) -> tuple[list[float], list[float]]:
    """Return seconds of a block of steps with and without exact resume; each block is a separate fit."""
    with_it, without = [], []
    os.environ.pop("LIGHTNING_GREEN_RESUME", None)
    for number in range(blocks + 1):
        for mine in (True, False) if number % 2 else (False, True):
            timed = Timed(steps + 10)
            tracker = EmissionsTracker(meter=10.0)
            shutil.rmtree(folder / "run", ignore_errors=True)
            fit(
                trainer_of(folder, [*([ExactResume(every="15m")] if mine else []), tracker, timed], steps + 20),
                Dense(1_000_000),
            )
            (with_it if mine else without).append(timed.ends[-1] - timed.ends[9])
    return with_it[1:], without[1:]


class Indices(Dataset):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        time.sleep(1e-4)  # loading takes time, so that replaying samples would be visible
        return index


def skipping(pairs: int, batches: int = 500) -> tuple[list[float], list[float]]:
    """Return seconds to the first batch after 90 % and after 10 % of an epoch were skipped."""
    most, least = [], []
    for number in range(pairs + 1):
        for share in (0.9, 0.1) if number % 2 else (0.1, 0.9):
            loader = count_batches(DataLoader(Indices(batches * 16), batch_size=16, shuffle=True), 0, deferred=False)
            iterator = iter(loader)
            next(iterator)
            position = {**loader.position(0), "taken": int(batches * share)}
            loader.resume(position, at_start=False)
            began = time.perf_counter()
            next(iter(loader))
            (most if share == 0.9 else least).append(time.perf_counter() - began)
    return most[1:], least[1:]


def ratio(name: str, ours: list[float], theirs: list[float]) -> dict[str, object]:
    """Return the median ratio of pairs with its 95 % interval."""
    ratios, draw = [a / b for a, b in zip(ours, theirs, strict=True)], random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    print(f"{name}: {statistics.median(ours):.4f} s over {statistics.median(theirs):.4f} s", file=sys.stderr)
    return {
        name: round(statistics.median(ratios), 4),
        f"{name}_95": [round(medians[50], 4), round(medians[1949], 4)],
        f"{name}_n": len(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--data", help="not needed")
    parser.add_argument("--pairs", type=int, default=20, help="pairs of each ratio")
    parser.add_argument("--only", nargs="*", choices=PARTS, help="these alone")
    arguments = parser.parse_args()
    wanted = set(arguments.only or PARTS)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning_green"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    figures: dict[str, object] = {}
    for size, parameters in (("10m", 10_000_000), ("100m", 100_000_000)):
        if size in wanted:
            with tempfile.TemporaryDirectory(dir=".") as folder:  # on disk, like a run
                ours, theirs, syncs, plain = leaving(parameters, Path(folder), arguments.pairs)
                figures |= ratio(f"free_ratio_{size}", ours, theirs)
                if size == "100m":
                    figures["fsync_s_100m"] = round(statistics.median(syncs), 4)
                figures |= ratio(f"resume_ratio_{size}", *returning(parameters, Path(folder), plain, arguments.pairs))
    if "skip" in wanted:
        figures |= ratio("skip_growth", *skipping(arguments.pairs))
    if "step" in wanted:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["LIGHTNING_GREEN_RUN_DIR"] = f"{folder}/run"
            figures |= ratio("step_ratio", *stepping(Path(folder), arguments.pairs))
    figures["n"] = arguments.pairs
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
