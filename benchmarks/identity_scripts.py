"""Random user scripts for `identity.py`: the choices that a script is made of, and the text that they give.

`scenario(seed, index)` makes the choices. `Scenario.files()` returns the files: `train.py`, `trace.csv`, and `drive.sh`
or `drive.py` where the command starts several trainings. A script writes one JSON line a fit to `results.jsonl`, or to
standard output where the driver redirects that to a file for each training.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from textwrap import dedent, indent

START = datetime(2024, 5, 2, tzinfo=timezone.utc)
BATCH_SECONDS = 1200
CLOCK = f"simulated:start={START.isoformat()},batch={BATCH_SECONDS},checkpoint=0,restart=0"
BATCHES = 6  # training batches of one epoch: 48 samples, 8 a batch
CLEAN, DIRTY = 20, 900  # gCO2e/kWh

AWKWARD = {
    "folder": 'Path("data")',
    "transform": "squared",
    "tags": '{"red", "green", "blue"}',
    "mode": "Mode.FAST",
    "settings": "Settings()",
    "scale": "np.float64(0.3)",
    "created": "datetime.now()",
}
"""Hyperparameters that are ordinary Python objects: the expression of each."""

OPTIMIZERS = {
    "sgd": "return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)",
    "adam": "return torch.optim.Adam(self.parameters(), lr=self.lr)",
    "adam_and_step": (
        "optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)\n"
        "        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]"
    ),
}
STRUCTURES = {
    "sequence": 23, "loop": 20, "twice": 10, "finetune": 14, "loop_finetune": 5, "threads": 10, "processes": 18,
}  # fmt: skip
ONE_MODULE = ("twice", "finetune", "loop_finetune")
PASSES = {"loop": "fold", "loop_finetune": "fold", "threads": "thread"}


@dataclass(frozen=True)
class Fit:
    """Choices for one call of `trainer.fit`; the settings of all passes, in a loop or in threads.

    Args:
        name: Label in straight code.
        epochs: Epochs to train.
        lr: Learning rate.
        part: Number of the data set.
        start: Seed of the initial weights.
        width: Hidden units.
        green: `"scheduler"`, `"exact"` or `"scheduler+exact"`.
        meter: Watts of the modeled meter.
        deadline: Deadline of the scheduler, a duration.
        every: Expression for `ExactResume(every=...)`.
        monitor: Whether `ModelCheckpoint(monitor="val_loss")` replaces the default one.
        early_stopping: Whether there is an `EarlyStopping` with a patience that is never exhausted.
        csv: Whether there is a `CSVLogger`.
        after: What the script calls after the fit: `"validate"`, `"test"` or nothing.
        tuner: Whether `Tuner.lr_find` runs before the fit.

    """

    name: str
    epochs: int
    lr: float
    part: int
    start: int
    width: int
    green: str
    meter: int
    deadline: str
    every: str
    monitor: bool
    early_stopping: bool
    csv: bool
    after: str
    tuner: bool


@dataclass(frozen=True)
class Fault:
    """One fault, injected once.

    Args:
        kind: `"sigkill"`, `"sigterm"`, `"exception"`, `"supervisor"` or `"everything"`.
        place: `"batch"`; `"before"` or `"after"` a fit; `"end"` of the script.
        label: The fit.
        step: Global step from which on a fault at a batch strikes.

    """

    kind: str
    place: str
    label: str
    step: int = 0


@dataclass(frozen=True)
class Process:
    """One start of `train.py`.

    Args:
        prefix: What the script puts before its labels.
        args: Arguments.
        env: Environment variables.
        directory: Working directory, below the directory of the script.
        seed: Content of `seed.txt` in the working directory, or None.
        output: File for standard output, or None.

    """

    prefix: str = ""
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    directory: str = "."
    seed: str | None = None
    output: str | None = None


@dataclass(frozen=True)
class Driver:
    """A command that starts `train.py` several times.

    Args:
        language: `"bash"` or `"python"`.
        parallel: Whether the trainings run at the same time.
        strict: Whether a failed training fails the driver.
        distinguished_by: What distinguishes the trainings: `"env"`, `"seed"`, `"lr"`, `"cwd"` or `"nothing"`.
        values: The value of each training, such as its seed.

    """

    language: str
    parallel: bool
    strict: bool
    distinguished_by: str
    values: tuple[str, ...]

    def processes(self) -> list[Process]:
        """Return the trainings in the order in which the driver starts them."""
        make = {
            "env": lambda s: Process(f"seed{s}-", env=(("SEED", s),)),
            "seed": lambda s: Process(f"seed{s}-", args=("--seed", s)),
            "lr": lambda s: Process(f"lr{s}-", args=("--lr", s)),
            "cwd": lambda s: Process(f"seed{s}-", directory=f"run{s}", seed=s),
            "nothing": lambda s: Process(output=f"out{s}.jsonl"),
        }[self.distinguished_by]
        return [make(value) for value in self.values]

    @property
    def file(self) -> str:
        """The name of the driver's file."""
        return "drive.sh" if self.language == "bash" else "drive.py"

    def text(self) -> str:
        """Return the driver's file."""
        line = {
            "env": "SEED=$s python train.py",
            "seed": "python train.py --seed $s",
            "lr": "python train.py --lr $s",
            "cwd": "(mkdir -p run$s && cd run$s && echo $s > seed.txt && exec python ../train.py)",
            "nothing": "python train.py >> out$s.jsonl",
        }[self.distinguished_by]
        if self.language == "python":
            return self._python([line.replace("$s", value) for value in self.values])
        loop = f"for s in {' '.join(self.values)}; do\n    {line}{' &' if self.parallel else ''}\n"
        if not self.parallel:
            return f"{'set -e' if self.strict else '# a failed training is ignored'}\n{loop}done\n"
        if not self.strict:
            return f"{loop}done\nwait\n"
        wait = 'code=0\nfor pid in "${pids[@]}"; do\n    wait "$pid" || code=$?\ndone\nexit $code\n'
        return f"pids=()\n{loop}    pids+=($!)\ndone\n{wait}"

    def _python(self, lines: Sequence[str]) -> str:
        text = "import subprocess\nimport sys\n\nCOMMANDS = [\n"
        text += "".join(f"    {line!r},\n" for line in lines) + "]\n"
        if not self.parallel:
            return f"{text}for command in COMMANDS:\n    subprocess.run(command, shell=True, check={self.strict})\n"
        text += "processes = [subprocess.Popen(command, shell=True) for command in COMMANDS]\n"
        text += "codes = [process.wait() for process in processes]\n"
        return f"{text}sys.exit(next((code for code in codes if code), 0))\n" if self.strict else text


@dataclass(frozen=True)
class Scenario:
    """Every random choice of one script and of its interruptions.

    Args:
        seed: Seed of the benchmark.
        index: Number of the script.
        structure: Key of `STRUCTURES`.
        seeded: How the script calls `seed_everything`: `"once"`, before `"each"` fit, or not at all.
        hparams: Nothing for no `save_hyperparameters`, `("numbers",)`, or keys of `AWKWARD`.
        shuffle: What draws the order of the samples: `"global"`, `"generator"` or nothing.
        dropout: Whether the module has dropout.
        optimizer: Key of `OPTIMIZERS`.
        fits: The fits.
        count: Passes of the loop, or threads.
        varies: What differs between the passes: `"part"`, `"lr"`, `"start"` or `"width"`.
        alternates: Whether meter and deadline of the passes alternate.
        finetune: `"same_module"` or `"from_best"`.
        shares_loader: Whether the fits of one module use one loader.
        pool: Whether the threads belong to an executor, which passes their exceptions on.
        driver: The driver, or None.
        dirty: Hours (begin, end) since the start in which the grid is dirty.
        faults: The faults.

    """

    seed: int
    index: int
    structure: str
    seeded: str
    hparams: tuple[str, ...]
    shuffle: str
    dropout: bool
    optimizer: str
    fits: tuple[Fit, ...]
    count: int
    varies: str
    alternates: bool
    finetune: str
    shares_loader: bool
    pool: bool
    driver: Driver | None
    dirty: tuple[tuple[int, int], ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def command(self) -> list[str]:
        """The command line that trains."""
        if self.driver is None:
            return ["python", "train.py"]
        return [self.driver.language, self.driver.file]

    @property
    def tuned(self) -> bool:
        """Whether a learning rate finder runs, which needs a module that makes its own loaders."""
        return any(fit.tuner for fit in self.fits)

    def processes(self) -> list[Process]:
        """Return the starts of `train.py` that the command makes."""
        return [Process()] if self.driver is None else self.driver.processes()

    def fit_labels(self) -> list[tuple[str, int, int]]:
        """Return label, first and last global step of each fit of one process."""
        steps = [fit.epochs * BATCHES for fit in self.fits]
        if self.structure == "twice":
            return [(fit.name, sum(steps[:n]) + 1, sum(steps[: n + 1])) for n, fit in enumerate(self.fits)]
        if self.structure == "loop_finetune":
            return [
                (f"fold{n}-{fit.name}", 1, last)
                for n in range(self.count)
                for fit, last in zip(self.fits, steps, strict=True)
            ]
        if self.structure in PASSES:
            return [(f"{PASSES[self.structure]}{n}", 1, steps[0]) for n in range(self.count)]
        return [(fit.name, 1, last) for fit, last in zip(self.fits, steps, strict=True)]

    def files(self) -> dict[str, str]:
        """Return name and text of each file."""
        files = {"train.py": render(self), "trace.csv": self.trace()}
        return files if self.driver is None else {**files, self.driver.file: self.driver.text()}

    def trace(self) -> str:
        """Return the hourly intensities of the grid as CSV."""
        rows = ["datetime,carbon_intensity"]
        for hour in range(-24, 24 * 30):
            value = DIRTY if any(begin <= hour < end for begin, end in self.dirty) else CLEAN
            rows.append(f"{(START + timedelta(hours=hour)).isoformat()},{value}")
        return "\n".join(rows) + "\n"

    def describe(self) -> str:
        """Return the main choices in one line."""
        parts = [f"{self.structure}, {len(self.fit_labels()) * len(self.processes())} fits"]
        if self.driver is not None:
            order = "parallel" if self.driver.parallel else "sequential"
            errors = "strict" if self.driver.strict else "lenient"
            parts.append(f"{order} {errors} {self.driver.language} by {self.driver.distinguished_by}")
        elif self.structure in PASSES:
            parts.append(f"by {self.varies}")
        parts.append(f"seeded {self.seeded}" if self.seeded else "unseeded")
        parts.append(f"hparams {'+'.join(self.hparams) or 'none'}")
        parts.append("/".join(sorted({fit.green for fit in self.fits})))
        parts += [f"dirty {begin}-{end} h" for begin, end in self.dirty]
        parts += [f"{fault.kind} {fault.place} {fault.label} {fault.step or ''}".rstrip() for fault in self.faults]
        return ", ".join(parts)


# -- random choices ---------------------------------------------------------------------------------------------------


def scenario(seed: int, index: int) -> Scenario:
    """Return the random choices of one script.

    Args:
        seed: Seed of the benchmark.
        index: Number of the script.

    """
    draw = random.Random(f"{seed}-{index}")
    structure = draw.choices(list(STRUCTURES), list(STRUCTURES.values()))[0]
    driver = _driver(draw) if structure == "processes" else None
    seeded = "" if structure == "threads" else draw.choice(["once", "once", "each", "", ""])
    if seeded == "each" and (structure == "twice" or driver is not None):
        seeded = "once"
    kind = draw.choice(["none", "numbers", "numbers", "awkward"])
    awkward = tuple(sorted(draw.sample(sorted(AWKWARD), draw.randint(1, 4))))
    # Lightning's learning rate finder cannot load the checkpoint of a module with awkward hyperparameters
    tuned = structure in ("sequence", "loop") and kind != "awkward" and draw.random() < 0.3
    made = Scenario(
        seed=seed,
        index=index,
        structure=structure,
        seeded=seeded,
        hparams={"none": (), "numbers": ("numbers",)}.get(kind, awkward),
        shuffle=draw.choice(["global", "global", "generator", ""] if seeded else ["generator", ""]),
        dropout=bool(seeded) and draw.random() < 0.6,
        optimizer=draw.choice(list(OPTIMIZERS)),
        fits=_fits(draw, structure, driver, tuned),
        count={"loop": draw.randint(2, 4), "threads": draw.choice([2, 2, 3]), "loop_finetune": 2}.get(structure, 1),
        varies=draw.choice(["part", "part", "lr", "start", "width"]),
        alternates=draw.random() < 0.5,
        finetune=draw.choice(["same_module", "from_best"]),
        shares_loader=draw.random() < 0.5,
        pool=draw.random() < 0.5,
        driver=driver,
    )
    made = replace(made, faults=_faults(draw, made))
    if not made.faults and all(fit.green == "exact" for fit in made.fits):  # let something happen
        made = replace(made, fits=tuple(replace(fit, green="scheduler+exact") for fit in made.fits))
    return replace(made, dirty=_dirty(draw, made))


def _driver(draw: random.Random) -> Driver:
    by = draw.choice(["env", "env", "seed", "lr", "cwd", "nothing"])
    return Driver(
        language=draw.choice(["bash", "bash", "python"]),
        # identical trainings at the same time in one directory would overwrite each other's checkpoints
        parallel=by != "nothing" and draw.random() < 0.4,
        strict=draw.random() < 0.6,
        distinguished_by=by,
        values=(("0.05", "0.02", "0.1") if by == "lr" else ("1", "2", "3"))[: draw.choice([2, 2, 2, 3])],
    )


def _fits(draw: random.Random, structure: str, driver: Driver | None, tuned: bool) -> tuple[Fit, ...]:
    number = {"sequence": draw.choice([1, 1, 2, 2, 3, 3, 4]), "loop": 1, "threads": 1}.get(structure, 2)
    if driver is not None and (len(driver.values) > 2 or draw.random() < 0.7):
        number = 1
    fits = [
        Fit(
            name=name,
            epochs=draw.choice([1, 2, 2, 2, 3]),
            lr=draw.choice([0.05, 0.02, 0.1]),
            part=draw.choice([0, 0, 1, 2]),
            start=draw.choice([0, 0, 1]),
            width=draw.choice([8, 8, 6]),
            green=draw.choice(["scheduler", "scheduler", "exact", "scheduler+exact"]),
            meter=draw.choice([300, 300, 100]),
            deadline=draw.choice(["36h", "72h", "5d"]),
            every=draw.choice(["timedelta(milliseconds=100)", '"1s"', '"1h"']),
            monitor=draw.random() < 0.6,
            early_stopping=draw.random() < 0.3,
            csv=draw.random() < 0.3,
            after=draw.choice(["", "", "", "validate", "test"]),
            tuner=tuned and draw.random() < 0.6,
        )
        for name in "abcd"[:number]
    ]
    first, same = fits[0], draw.random() < 0.3
    if structure == "sequence" and same:  # only their order distinguishes the fits
        names = ("epochs", "lr", "part", "start", "width")
        fits = [replace(fit, **{name: getattr(first, name) for name in names}) for fit in fits]
    if structure in ONE_MODULE:
        fits = [replace(fit, width=8, part=first.part, start=first.start) for fit in fits]
    if structure == "twice":  # one Trainer, so its settings are those of the first fit
        fits = [replace(first, name=fit.name, epochs=fit.epochs, after=fit.after) for fit in fits]
        if fits[0].after == "test":  # the second fit deletes the best checkpoint of the first
            fits[0] = replace(fits[0], after="validate")
    if structure == "loop_finetune":  # four fits, which should be short
        fits = [replace(fit, epochs=1) for fit in fits]
    return tuple(fits)


def _faults(draw: random.Random, made: Scenario) -> tuple[Fault, ...]:
    # Nothing can notice that a process died between two fits when its driver ignores exit codes. An exception in a
    # plain thread is one that the script ignores: without a supervisor it ends with 0 as well.
    ignored = made.driver is not None and not made.driver.strict
    threads = made.structure == "threads" and not made.pool
    faults, labels = [], made.fit_labels()
    for _ in range(draw.choices([0, 1, 2], [25, 50, 25])[0]):
        prefix, (label, first, last) = draw.choice(made.processes()).prefix, draw.choice(labels)
        if draw.random() < 0.75:
            kind = draw.choice(["sigkill", "sigkill", "exception", "exception", "sigterm", "supervisor", "everything"])
            kind = "sigkill" if threads and kind == "exception" else kind
            faults.append(Fault(kind, "batch", prefix + label, draw.randint(first, last)))
            continue
        kind = draw.choice(["supervisor", "everything"] if ignored else ["sigkill", "exception"])
        kind = "sigkill" if threads else kind
        place = draw.choice(["before", "after", "end"])
        faults.append(Fault(kind, place, prefix + (labels[-1][0] if place == "end" else label)))
    return tuple(faults)


def _dirty(draw: random.Random, made: Scenario) -> tuple[tuple[int, int], ...]:
    """Return the dirty hours: spells of one or three hours, with as long clean ones between, and few planned exits."""
    several = made.driver is not None or made.structure == "threads"
    number = draw.choice([0, 1, 1] if several else [0, 1, 1, 1, 2, 3])
    if not made.faults:
        number = max(1, number)
    # the scheduler decides once it knows the time of a step, so a spell begins within a fit and not at its start
    hours = [(last - first + 1) * BATCH_SECONDS // 3600 for _, first, last in made.fit_labels()]
    chosen = draw.choices(range(len(hours)), hours)[0]
    before = 0 if made.structure == "threads" else sum(hours[:chosen])
    begin, length = before + draw.randint(1, max(1, hours[chosen] - 2)), draw.choice([1, 3])
    return tuple((begin + 2 * length * n, begin + 2 * length * n + length) for n in range(number))


# -- text -------------------------------------------------------------------------------------------------------------

HEAD = '''\
"""Script {index} of seed {seed} by benchmarks/identity.py.

{summary}
"""

import argparse
import hashlib
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

GREEN = os.environ.get("GREEN") != "none"
if GREEN:
    from lightning_green import CarbonScheduler, EmissionsTracker, ExactResume

torch.set_num_threads(1)
TRACE = str(Path(__file__).resolve().with_name("trace.csv"))
FAULTS = json.loads(os.environ.get("FAULTS", "[]"))


class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass
class Settings:
    depth: int = 2
    name: str = "small"


def squared(value):
    return value * value


def loaders(part):
    """Return a training and a validation loader of one data set."""
    generator = torch.Generator().manual_seed(100 + part)
    inputs = torch.randn(64, 4, generator=generator)
    data = TensorDataset(inputs, inputs.sum(1, keepdim=True) + 0.1 * torch.randn(64, 1, generator=generator))
    train, validation = torch.utils.data.Subset(data, range(48)), torch.utils.data.Subset(data, range(48, 64))
    return DataLoader(train, batch_size=8, {shuffle}), DataLoader(validation, batch_size=8)


class Regression(pl.LightningModule):
    def __init__(self, {arguments}):
        super().__init__()
        {hparams}
        self.lr = lr{part}
        self.net = nn.Sequential(nn.Linear(4, width), nn.Tanh(), {dropout}nn.Linear(width, 1))
        {initialize}

    def training_step(self, batch, batch_idx):
        loss = nn.functional.mse_loss(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        {optimizer}
{dataloaders}

def fault(place, label, step=0):
    """Do what the benchmark asks for at this place; each fault strikes once, in the process that gets there first."""
    for number, (kind, where, who, at) in enumerate(FAULTS):
        if (where, who) != (place, label) or step < at:
            continue
        marker = Path(os.environ["FAULT_DIR"]) / f"fault{{number}}"
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            continue
        if kind == "exception":
            raise RuntimeError(f"injected fault {{number}} at {{place}} of {{label}}")
        if kind in ("sigkill", "sigterm"):
            os.kill(os.getpid(), getattr(signal, kind.upper()))
        until = time.monotonic() + 20.0  # the benchmark kills the supervisor, or every process
        while kind in ("supervisor", "everything") and time.monotonic() < until:
            if marker.with_suffix(".done").exists():
                break
            time.sleep(0.02)


class Probe(pl.Callback):
    """Counts the training steps of one fit in this process."""

    def __init__(self, label):
        self.label, self.steps = label, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps += 1
        fault("batch", self.label, trainer.global_step)


def write(line):
    """Write one result."""
    {write}


def as_hex(metrics):
    return {{name: float(value).hex() for name, value in sorted(metrics.items())}}


def report(label, trainer, module, probe):
    """Write what a script reads after a fit."""
    weights, checkpoint = hashlib.sha256(), trainer.checkpoint_callback
    for name, tensor in module.state_dict().items():
        weights.update(name.encode() + tensor.numpy().tobytes())
    best, score = Path(checkpoint.best_model_path).name, checkpoint.best_model_score
    write(
        {{
            "fit": label,
            "weights": weights.hexdigest(),
            "metrics": as_hex(trainer.callback_metrics),
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "best": [best, None if score is None else float(score).hex()],
            "lr": float(module.lr).hex(),
            "trained_steps": probe.steps,
        }}
    )


'''


def render(made: Scenario) -> str:
    """Return the text of `train.py`."""
    arguments = [f"{name}={default}" for name, default in _DEFAULTS.items() if name in _parameters(made)]
    initialize = (
        "generator = torch.Generator().manual_seed(start)\n"
        "        for parameter in self.parameters():\n"
        "            parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator)"
    )
    shuffle = {
        "global": "shuffle=True",
        "generator": "shuffle=True, generator=torch.Generator().manual_seed(part)",
        "": "shuffle=False",
    }
    head = HEAD.format(
        index=made.index,
        seed=made.seed,
        summary=made.describe(),
        shuffle=shuffle[made.shuffle],
        arguments=", ".join(arguments),
        hparams="self.save_hyperparameters()" if made.hparams else "# no hyperparameters are saved",
        part="\n        self.part = part" if made.tuned else "",
        dropout="nn.Dropout(0.2), " if made.dropout else "",
        initialize="# the weights are those of seed_everything" if made.seeded else initialize,
        optimizer=OPTIMIZERS[made.optimizer],
        dataloaders=indent(dedent(_DATALOADERS), "    ") if made.tuned else "",
        write=_PRINT if made.driver is not None and made.driver.distinguished_by == "nothing" else _APPEND,
    )
    return f"{head}{_settings(made)}{_body(made)}"


_DATALOADERS = """
    def train_dataloader(self):
        return loaders(self.part)[0]

    def val_dataloader(self):
        return loaders(self.part)[1]
"""
_DEFAULTS = {"lr": 0.05, "width": 8, "start": 0, "part": 0, **dict.fromkeys(AWKWARD)}
_PRINT = "print(json.dumps(line), flush=True)  # the driver redirects it"
_APPEND = 'with open("results.jsonl", "a") as file:\n        file.write(json.dumps(line) + "\\n")'


def _settings(made: Scenario) -> str:
    """Return the lines that read what distinguishes the processes, and the one that seeds."""
    by = "" if made.driver is None else made.driver.distinguished_by
    lines = {
        "env": 'SEED = int(os.environ["SEED"])\n',
        "cwd": 'SEED = int(Path("seed.txt").read_text())\n',
        "seed": 'parser = argparse.ArgumentParser()\nparser.add_argument("--seed", type=int)\n'
        "SEED = parser.parse_args().seed\n",
        "lr": 'parser = argparse.ArgumentParser()\nparser.add_argument("--lr", type=float)\n'
        "LR = parser.parse_args().lr\n",
    }.get(by, "")
    if made.seeded == "once":
        lines += f"pl.seed_everything({'SEED' if 'SEED' in lines else 7})\n"
    return lines


def _body(made: Scenario) -> str:
    if made.structure not in PASSES:
        return "\n".join(_fit(made, number) for number in range(len(made.fits))) + '\nfault("end", label)\n'
    passes = "\n".join(_fit(made, number) for number in range(len(made.fits)))
    if made.structure == "threads":
        body = f"\ndef work(n):\n{indent(passes, '    ')}\n\n"
        if made.pool:
            body += f"with ThreadPoolExecutor({made.count}) as pool:\n"
            body += f"    for future in [pool.submit(work, n) for n in range({made.count})]:\n        future.result()\n"
        else:
            body += f"threads = [threading.Thread(target=work, args=(n,)) for n in range({made.count})]\n"
            body += "for thread in threads:\n    thread.start()\nfor thread in threads:\n    thread.join()\n"
        return f'{body}fault("end", "thread{made.count - 1}")\n'
    return (
        f"scores = []\nfor n in range({made.count}):\n{indent(passes, '    ')}"
        '    scores.append(float(trainer.callback_metrics.get("val_loss", 0.0)))\n\n'
        'write({"fit": "scores", "metrics": [score.hex() for score in scores]})\nfault("end", label)\n'
    )


def _fit(made: Scenario, number: int) -> str:
    """Return the lines of one fit: module, Trainer, fit and report."""
    fit, one_module = made.fits[number], made.structure in ONE_MODULE and number > 0
    lines = [f"# fit {fit.name}", f"label = {_label(made, fit)}"]
    values = _values(made, fit)
    if made.seeded == "each" and not one_module:
        lines.append(f"pl.seed_everything({values['start']})")
    if one_module and made.structure != "twice":
        if made.finetune == "from_best":
            path = "trainer.checkpoint_callback.best_model_path"
            lines.append(f"module = Regression.load_from_checkpoint({path}, weights_only=False)")
        lines.append(f"module.lr = {values['lr']}")
    elif not one_module:
        given = {**values, **AWKWARD}
        arguments = [f"{name}={given[name]}" for name in _parameters(made)]
        lines.append(f"module = Regression({', '.join(arguments)})")
    if not one_module or not made.shares_loader:
        lines.append(f"train, validation = loaders({values['part']})")
    if one_module and made.structure == "twice":
        lines += ["probe.label, probe.steps = label, 0", f"trainer.fit_loop.max_epochs += {fit.epochs}"]
    else:
        lines += [*_trainer(made, fit, values)]
    if fit.tuner:
        lines.append(
            "finder = Tuner(trainer).lr_find(module, min_lr=1e-3, max_lr=0.5, num_training=6, update_attr=False)"
        )
        lines.append("module.lr = finder.suggestion(skip_begin=1, skip_end=1) or module.lr")
    given = "module" if made.tuned else "module, train, validation"
    lines += ['fault("before", label)', f"trainer.fit({given})", 'fault("after", label)']
    lines.append("report(label, trainer, module, probe)")
    if fit.after:
        options = {"validate": "", "test": ', ckpt_path="best", weights_only=False'}[fit.after]
        lines.append(f"found = trainer.{fit.after}(module, validation{options}, verbose=False)")
        lines.append(f'write({{"fit": f"{{label}} {fit.after}", "metrics": as_hex(found[0])}})')
    return "\n".join(lines) + "\n"


def _parameters(made: Scenario) -> list[str]:
    """Return the parameters of the module: a value that has no effect on the module is none of them."""
    names = ["lr", "width", *([] if made.seeded else ["start"]), *(["part"] if made.tuned else [])]
    return [*names, *(name for name in made.hparams if name in AWKWARD)]


def _label(made: Scenario, fit: Fit) -> str:
    by = "" if made.driver is None else made.driver.distinguished_by
    if made.structure in PASSES:
        name = f"-{fit.name}" if made.structure == "loop_finetune" else ""
        return f'f"{PASSES[made.structure]}{{n}}{name}"'
    prefix = {"": "", "nothing": "", "lr": "lr{LR}-"}.get(by, "seed{SEED}-")
    return f'f"{prefix}{fit.name}"' if prefix else f'"{fit.name}"'


def _values(made: Scenario, fit: Fit) -> dict[str, str]:
    """Return the expressions of what a fit trains."""
    values = {name: str(getattr(fit, name)) for name in ("lr", "width", "start", "part")}
    if made.structure in PASSES:
        varies = "part" if made.structure == "loop_finetune" and made.varies == "width" else made.varies
        values[varies] = {"lr": f"{fit.lr} / (n + 1)", "width": "n + 6"}.get(varies, "n")
    elif made.driver is not None and made.driver.distinguished_by == "lr":
        values["lr"] = "LR"
    elif made.driver is not None and made.driver.distinguished_by != "nothing":
        values["start"] = "SEED"
    return values


def _trainer(made: Scenario, fit: Fit, values: dict[str, str]) -> list[str]:
    """Return the lines that make the callbacks and the Trainer."""
    alternates = made.structure in PASSES and made.alternates
    meter = "(100, 300)[n % 2]" if alternates else str(fit.meter)
    deadline = '("36h", "72h")[n % 2]' if alternates else f'"{fit.deadline}"'
    green = []
    if "scheduler" in fit.green:
        green.append(f"EmissionsTracker(grid=TRACE, meter={meter})")
        green.append(f"CarbonScheduler(deadline={deadline}, resume_cost=0.001, hold_power=0.9)")
    if "exact" in fit.green:
        green.append(f"ExactResume(every={fit.every})")
    callbacks = ["probe", 'ModelCheckpoint(monitor="val_loss")'] if fit.monitor else ["probe"]
    if fit.early_stopping:
        callbacks.append('EarlyStopping("val_loss", patience=50)')
    own_directory = made.structure == "threads" or (
        made.driver is not None and made.driver.distinguished_by != "nothing"
    )
    logger = "CSVLogger(label)" if own_directory else 'CSVLogger(".")'
    return [
        "green = []",
        "if GREEN:",
        "    green = [",
        *(f"        {callback}," for callback in green),
        "    ]",
        "probe = Probe(label)",
        "trainer = pl.Trainer(",
        '    accelerator="cpu",',
        "    devices=1,",
        f"    max_epochs={fit.epochs},",
        f"    logger={logger if fit.csv else False},",
        *(["    default_root_dir=label,"] if own_directory else []),
        f"    callbacks=[{', '.join(callbacks)}, *green],",
        "    log_every_n_steps=1,",
        "    enable_progress_bar=False,",
        "    enable_model_summary=False,",
        ")",
    ]
