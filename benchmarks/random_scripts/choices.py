"""The choices that a random script and its interruptions are made of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

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
