"""Runs a training script in small, uninterrupted and interrupted, and compares the two."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from lightning_green.check.differences import Difference, Trace, first_difference, varying_attributes, varying_fields
from lightning_green.check.job import JOB_VARIABLE, Job, Stop
from lightning_green.check.scratch import mirror
from lightning_green.check.stops import choose_stops
from lightning_green.ledger.run_directory import RESUME_VARIABLE, RUN_DIR_VARIABLE
from lightning_green.run.pause_rule import PauseAt, PauseRule
from lightning_green.utilities.clock import CLOCK_VARIABLE

_CLOCK = "simulated:start=2024-05-02T00:00:00+00:00,batch=1,checkpoint=0,restart=0"
_TAIL_LINES = 15


class Verdict(str, Enum):
    """Where a script resumes exactly."""

    EXACT = "exact"
    EPOCHS = "exact_at_epochs"
    INEXACT = "inexact"
    NOT_SAVED = "not_saved"
    UNDETERMINED = "undetermined"


class CheckFailedError(RuntimeError):
    """A script cannot be checked; the message contains the reason."""


@dataclass(frozen=True)
class CheckResult:
    """Result of a check.

    Args:
        verdict: Where the script resumes exactly.
        reason: Why it is not exact everywhere, in one sentence without the final period; empty if it is.
        remedy: What to change in the script; empty if nothing.
        difference: The first difference that was found, or None.
        ignored: Metrics that differ between any two runs, such as a time, and were not compared.
        loggers: Classes of loggers that logged as usual, because the check cannot redirect them.
        fits: Number of fits that were checked.
        epochs: Epochs of the first fit.
        batches: Training batches of an epoch of the first fit.
        stops: The stops, for people.
        starts: Number of processes that were started.
        seconds: Duration of the check.

    """

    verdict: Verdict
    reason: str = ""
    remedy: str = ""
    difference: Difference | None = None
    ignored: tuple[str, ...] = ()
    loggers: tuple[str, ...] = ()
    fits: int = 0
    epochs: int = 0
    batches: int = 0
    stops: tuple[str, ...] = ()
    starts: int = 0
    seconds: float = 0.0

    @property
    def pause_rule(self) -> PauseRule | None:
        """Where ``lightning-green run`` may pause the script; None if the check has not found out."""
        if self.verdict is Verdict.EXACT:
            return PauseRule()
        if self.verdict in (Verdict.EPOCHS, Verdict.INEXACT):
            return PauseRule(PauseAt.EPOCH if self.verdict is Verdict.EPOCHS else PauseAt.NEVER, self.reason)
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON types."""
        return {**asdict(self), "verdict": self.verdict.value}


class Check:
    """Finds out whether a training command resumes exactly.

    The command runs in a copy of the working directory, with a few batches of a few epochs, once without a stop and
    once stopped and resumed at several boundaries.

    Args:
        command: The training command.
        epochs: Epochs of a fit, at most; more if a callback changes the training later.
        batches: Training batches of an epoch, at most.
        timeout: Seconds that one process may take.
        keep: Directory in which the traces, the outputs and the copies are kept; None for a temporary one.
        progress: Called with a line before each process starts.

    Examples:
        ```python
        from lightning_green.check import Check
        Check(["python", "train.py"]).run().verdict
        ```

    """

    def __init__(
        self,
        command: Sequence[str],
        epochs: int = 3,
        batches: int = 6,
        timeout: float = 600.0,
        keep: Path | None = None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._command, self._epochs, self._batches = list(command), epochs, batches
        self._timeout, self._keep, self._progress = timeout, keep, progress
        self._starts = 0

    def run(self) -> CheckResult:
        """Run the check.

        Raises:
            CheckFailedError: If the command fails, or trains nothing that can be checked.

        """
        began = time.monotonic()
        if self._keep is not None:
            self._keep.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix="lightning_green_check_", ignore_cleanup_errors=True)
        with temporary if self._keep is None else nullcontext(str(self._keep)) as directory:
            result = self._run(Path(directory))
        return CheckResult(**{**vars(result), "starts": self._starts, "seconds": time.monotonic() - began})

    def _run(self, directory: Path) -> CheckResult:
        straight = self._train(directory / "straight", (), "uninterrupted")
        fits = _started(straight)
        if not fits:
            raise CheckFailedError(
                "No `Trainer.fit` was seen. Install Lightning Green into the Python environment "
                "of the command; `fast_dev_run=True` and fits of other libraries are not checked."
            )
        first = fits[min(fits)]
        about: dict[str, Any] = {"fits": len(fits), "epochs": first["epochs"] or 0, "batches": _batches(first)}
        about["loggers"] = tuple(sorted({name for one in straight for name in one.get("loggers", ())}))
        if not all(record["can_save"] for record in fits.values()):
            why = next((record["why_not_saved"] for record in fits.values() if record["why_not_saved"]), None)
            return CheckResult(Verdict.NOT_SAVED, why or "Trainer(enable_checkpointing=False) saves nothing", **about)
        only_epochs = next((record["epochs_only"] for record in fits.values() if record["epochs_only"]), None)
        if only_epochs:
            return self._check_epochs(directory, straight, straight, only_epochs, about)
        stops = choose_stops(fits, _changes(straight), epochs_only=False)
        stopped = self._train(directory / "stopped", stops, "stopped and resumed")
        about["stops"] = _reached(stopped)
        difference = _difference(straight, stopped)
        if difference is None:
            return CheckResult(Verdict.EXACT, **about)
        again = self._train(directory / "again", (), "uninterrupted, again")
        varying = varying_fields(straight, again)
        ignored = tuple(sorted(name for what, name in varying if what == "metrics"))
        if varying - {("metrics", name) for name in ignored}:
            return _undetermined(first_difference(straight, again), bool(first["seeded"]), about)
        difference = _difference(straight, stopped, again)
        if difference is None:
            return CheckResult(Verdict.EXACT, ignored=ignored, **about)
        about["ignored"] = ignored
        return self._check_epochs(directory, straight, again, difference, about)

    def _check_epochs(
        self, directory: Path, straight: Trace, again: Trace, why: Difference | str, about: dict[str, Any]
    ) -> CheckResult:
        """Check the boundaries between epochs, after those between batches were not exact."""
        difference = None if isinstance(why, str) else why
        reason = why if isinstance(why, str) else _reason(why)
        remedy = "" if difference is None else _remedy(difference)
        fits = _started(straight)
        stops = choose_stops(fits, _changes(straight), epochs_only=True)
        if not stops:
            return CheckResult(Verdict.INEXACT, reason, remedy, difference, **about)
        stopped = self._train(directory / "epochs", stops, "stopped and resumed between epochs")
        about["stops"] = (*about.get("stops", ()), *_reached(stopped))
        other = _difference(straight, stopped, again)
        if other is None:
            return CheckResult(Verdict.EPOCHS, reason, remedy, difference, **about)
        return CheckResult(Verdict.INEXACT, _reason(other), _remedy(other), other, **about)

    # -- processes ----------------------------------------------------------------------------------------------------

    def _train(self, directory: Path, stops: tuple[Stop, ...], what: str) -> list[dict[str, Any]]:
        """Run the command, and again after each stop; return its trace."""
        job = Job(directory, stops, self._epochs, self._batches)
        job.write()
        working = mirror(Path.cwd(), directory / "working_directory")
        for start in range(len(stops) + 1):
            self._progress(what if not stops else f"{what}, start {start + 1} of {len(stops) + 1}")
            before = job.next_stop
            code = self._start(job, working)
            if job.next_stop == before:
                if code != 0:
                    raise CheckFailedError(self._failure(job, code, what))
                break
        return job.trace()

    def _start(self, job: Job, working: Path) -> int:
        self._starts += 1
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LIGHTNING_GREEN_")}
        environment |= {
            JOB_VARIABLE: str(job.directory),
            RUN_DIR_VARIABLE: str(job.directory / "run"),
            RESUME_VARIABLE: "1",
            CLOCK_VARIABLE: _CLOCK,
            "PWD": str(working),
            "WANDB_MODE": "offline",
            "WANDB_DIR": str(job.directory),
            "MLFLOW_TRACKING_URI": (job.directory / "mlruns").as_uri(),
            "COMET_MODE": "offline",
        }
        with open(job.directory / "output.log", "ab") as log:
            try:
                return subprocess.run(
                    self._command, cwd=working, env=environment, stdout=log, stderr=log, timeout=self._timeout
                ).returncode
            except OSError as error:
                raise CheckFailedError(f"The command cannot be started: {error}.") from error
            except subprocess.TimeoutExpired as error:
                raise CheckFailedError(
                    f"A short run took more than {self._timeout:.0f} s. Allow more with --timeout."
                ) from error

    def _failure(self, job: Job, code: int, what: str) -> str:
        lines = (job.directory / "output.log").read_text(encoding="utf-8", errors="replace").splitlines()
        tail = "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])
        return f"The command failed with exit code {code} ({what}). Its last lines:\n{tail}"


def _difference(straight: Trace, stopped: Trace, again: Trace | None = None) -> Difference | None:
    """Return the first difference of an interrupted run; one that started from scratch differs in any case."""
    after = ""
    for record in stopped:
        if record["kind"] == "stopped":
            after = record["stop"]
        elif record["kind"] == "not stopped":
            return Difference("the stop", record["stop"], "not saved")
        elif record["kind"] == "started" and after and record["restored"] is None and record["fit"] == 0:
            return Difference("the start", after, "not restored")
    if again is None:
        return first_difference(straight, stopped)
    return first_difference(straight, stopped, varying_fields(straight, again), varying_attributes(straight, again))


def _started(trace: Trace) -> dict[int, dict[str, Any]]:
    """Return the records of the starts of the fits of the first training, by their number."""
    return {one["fit"]: dict(one) for one in trace if one["kind"] == "started" and one["run"] == 0}


def _reached(trace: Trace) -> tuple[str, ...]:
    return tuple(record["stop"] for record in trace if record["kind"] == "stopped")


def _changes(trace: Trace) -> list[int]:
    return sorted({epoch for record in trace if record["kind"] == "attached" for epoch in record["changes"]})


def _batches(started: dict[str, Any]) -> int:
    batches = started["batches"]
    return int(batches) if batches != float("inf") else 0


def _undetermined(difference: Difference | None, seeded: bool, about: dict[str, Any]) -> CheckResult:
    what = "" if difference is None else f": {difference.describe()}"
    remedy = (
        "use deterministic algorithms, `Trainer(deterministic=True)`"
        if seeded
        else "call `seed_everything(..., workers=True)` before the model and the data are created"
    )
    return CheckResult(
        Verdict.UNDETERMINED, f"two uninterrupted runs of the script differ{what}", remedy, difference, **about
    )


def _reason(difference: Difference) -> str:
    if difference.what == "not restored":
        return f"a process that was {difference.after} was not resumed"
    if difference.what == "not saved":
        return f"the state could not be saved where it should have been {difference.after}"
    return f"after it was {difference.after}, the training differs first in {difference.describe()}"


def _remedy(difference: Difference) -> str:
    """Return what to change in the script, by what differed first."""
    if difference.attributes:
        path = difference.attributes[0][0]
        if path.startswith(("train_dataloader", "datamodule")):
            return (
                "compute it from the index of the sample or the epoch, draw from the global generators, or give the "
                "loader `state_dict` and `load_state_dict`"
            )
        return (
            "compute it from `current_epoch` or `global_step`, or save it in `on_save_checkpoint` and set it in "
            "`on_load_checkpoint`"
        )
    return {
        "samples": "draw from the global generators of `torch`, `numpy` or `random` only, in the order of the batches",
        "random": "draw random numbers in hooks of the training only, not in threads or by the wall clock",
        "settings": "set it by a scheduler of `configure_optimizers`, or in every epoch by `current_epoch`",
    }.get(difference.what, "save what the step depends on in `on_save_checkpoint`, and set it in `on_load_checkpoint`")
