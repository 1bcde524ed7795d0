"""Runs a short version of a training, uninterrupted and interrupted, and compares the two."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_green.check.differences import Difference, Trace, first_difference, varying_attributes, varying_fields
from lightning_green.check.job import JOB_VARIABLE, Job, Stop
from lightning_green.check.scratch import Mirror
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
        linked: Files and directories of the working directory that were not copied; what the script writes there
            remains.
        files: Files of the script.
        fits: Number of fits that were checked.
        epochs: Epochs of the first fit.
        batches: Training batches of an epoch of the first fit.
        stops: The stops, for people.
        missed: Stops that the training did not reach.
        starts: Number of processes that were started.
        seconds: Duration of the check.

    """

    verdict: Verdict
    reason: str = ""
    remedy: str = ""
    difference: Difference | None = None
    ignored: tuple[str, ...] = ()
    loggers: tuple[str, ...] = ()
    linked: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    fits: int = 0
    epochs: int = 0
    batches: int = 0
    stops: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
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
        self._timeout, self._progress = timeout, progress
        self._keep = None if keep is None else keep.absolute()
        self._starts = 0

    def run(self) -> CheckResult:
        """Run the check.

        Raises:
            CheckFailedError: If the command fails without a stop, trains nothing that can be checked, or ``keep`` is
                not empty.

        """
        began = time.monotonic()
        if self._keep is not None:
            self._keep.mkdir(parents=True, exist_ok=True)
            if any(self._keep.iterdir()):
                raise CheckFailedError(f"{self._keep} is not empty. Choose another directory with --keep.")
        temporary = tempfile.TemporaryDirectory(prefix="lightning_green_check_", ignore_cleanup_errors=True)
        with temporary if self._keep is None else nullcontext(str(self._keep)) as directory:
            result = self._run(Path(directory))
        return replace(result, starts=self._starts, seconds=time.monotonic() - began)

    def _run(self, directory: Path) -> CheckResult:
        runs = _Runs(self, directory)
        fits = runs.fits
        if not fits:
            raise CheckFailedError(
                "No `Trainer.fit` was seen. Install Lightning Green into the Python environment of the command; "
                "`fast_dev_run=True` and fits of other libraries are not checked."
            )
        first = fits[min(fits)]
        result = CheckResult(
            Verdict.EXACT,
            fits=len(fits),
            epochs=first["epochs"] or 0,
            batches=0 if math.isinf(first["batches"]) else int(first["batches"]),
            loggers=runs.collect("loggers"),
            linked=runs.straight.linked,
            files=runs.files(),
        )
        if not all(record["can_save"] for record in fits.values()):
            why = next((record["why_not_saved"] for record in fits.values() if record["why_not_saved"]), None)
            reason = why or "Trainer(enable_checkpointing=False) saves nothing"
            return replace(result, verdict=Verdict.NOT_SAVED, reason=reason)
        reason = next((one["why_epochs_only"] for one in fits.values() if one["why_epochs_only"]), None)
        if reason is not None:
            result = replace(result, verdict=Verdict.INEXACT, reason=reason)
        else:
            result = runs.compare(result, epochs_only=False)
        if result.verdict is not Verdict.INEXACT or not runs.stops(epochs_only=True):
            return result
        between = runs.compare(result, epochs_only=True)
        if between.verdict is Verdict.EXACT:  # the reason is why the middle of an epoch is not
            return replace(between, verdict=Verdict.EPOCHS)
        return between

    # -- processes ----------------------------------------------------------------------------------------------------

    def train(self, directory: Path, stops: tuple[Stop, ...], what: str) -> Training:
        """Run the command, and again after each stop.

        Args:
            directory: Directory of the job.
            stops: Where the processes stop.
            what: What is run, for people.

        Raises:
            CheckFailedError: If the command fails before it was stopped.

        """
        job = Job(directory, stops, self._epochs, self._batches)
        job.write()
        mirror = Mirror(Path.cwd(), directory / "tree")
        failure = ""
        for start in range(len(stops) + 1):
            self._progress(what if not stops else f"{what}, start {start + 1} of {len(stops) + 1}")
            before = job.next_stop
            code = self._start(job, mirror.path)
            if job.next_stop == before:
                if code != 0 and start == 0:
                    tail = "\n".join(f"    {line}" for line in _lines(job)[-_TAIL_LINES:])
                    raise CheckFailedError(
                        f"The command failed with exit code {code} ({what}). Its last lines:\n{tail}"
                    )
                failure = "" if code == 0 else _lines(job)[-1].strip()
                break
        missed = tuple(stop.describe() for stop in stops[len(_reached(job.trace())) :])
        return Training(job.trace(), failure, missed, tuple(mirror.linked), mirror.path)

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
                process = subprocess.Popen(
                    self._command, cwd=working, env=environment, stdout=log, stderr=log, start_new_session=True
                )
            except OSError as error:
                raise CheckFailedError(f"The command cannot be started: {error}.") from error
        try:
            return process.wait(self._timeout)
        except subprocess.TimeoutExpired as error:
            raise CheckFailedError(
                f"A short run took more than {self._timeout:.0f} s. Allow more with --timeout."
            ) from error
        finally:  # also after Ctrl-C: with the processes that the command has started
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass(frozen=True)
class Training:
    """What the processes of one run of the script did.

    Args:
        trace: Their records.
        failure: The last line of a process that failed after a stop; empty if none did.
        missed: Stops that no process reached, for people.
        linked: Files and directories that were not copied.
        directory: The copy of the working directory.

    """

    trace: Trace
    failure: str
    missed: tuple[str, ...]
    linked: tuple[str, ...]
    directory: Path


class _Runs:
    """The runs of one check; those without a stop are made once."""

    def __init__(self, check: Check, directory: Path) -> None:
        self._check, self._directory = check, directory
        self.straight = check.train(directory / "straight", (), "uninterrupted")

    @cached_property
    def again(self) -> Trace:
        """Trace of a second uninterrupted run."""
        return self._check.train(self._directory / "again", (), "uninterrupted, again").trace

    @cached_property
    def fits(self) -> dict[int, dict[str, Any]]:
        """The records of the starts of the fits of the first training, by their number."""
        trace = self.straight.trace
        return {one["fit"]: dict(one) for one in trace if one["kind"] == "started" and one["run"] == 0}

    def collect(self, name: str) -> tuple[str, ...]:
        """Return all names in a list of the records, once."""
        return tuple(sorted({one for record in self.straight.trace for one in record.get(name, ())}))

    def files(self) -> tuple[str, ...]:
        """Return the files of the script: those of the copy by their path in the working directory."""
        copy = f"{self.straight.directory}{os.sep}"
        return tuple(file.removeprefix(copy) for file in self.collect("files"))

    def stops(self, epochs_only: bool) -> tuple[Stop, ...]:
        """Return where the processes of an interrupted run stop."""
        changes = {epoch for record in self.straight.trace for epoch in record.get("changes", ())}
        return choose_stops(self.fits, sorted(changes), epochs_only)

    def compare(self, result: CheckResult, epochs_only: bool) -> CheckResult:
        """Return a result with the verdict on one interrupted run."""
        what = "interrupted between epochs" if epochs_only else "interrupted"
        directory = self._directory / ("epochs" if epochs_only else "batches")
        stopped = self._check.train(directory, self.stops(epochs_only), what)
        reached = _reached(stopped.trace)
        result = replace(result, stops=(*result.stops, *reached), missed=(*result.missed, *stopped.missed))
        if not reached:
            reason = "the training is too short to be stopped"
            return replace(result, verdict=Verdict.UNDETERMINED, reason=reason)
        if stopped.failure:
            failed = Difference("the start", reached[-1], "failed", found=stopped.failure)
            return _inexact(result, failed)
        if _difference(self.straight.trace, stopped.trace) is None:
            return replace(result, verdict=Verdict.EXACT)
        varying = varying_fields(self.straight.trace, self.again)
        metrics = {(field, name) for field, name in varying if field == "metrics"}
        result = replace(result, ignored=tuple(sorted(name for _, name in metrics)))
        difference = first_difference(self.straight.trace, self.again, metrics)
        if difference is not None:
            seeded = all(record["seeded"] for record in self.fits.values())
            return _undetermined(result, difference, seeded)
        difference = _difference(self.straight.trace, stopped.trace, self.again)
        return replace(result, verdict=Verdict.EXACT) if difference is None else _inexact(result, difference)


def _lines(job: Job) -> list[str]:
    """Return the lines of the output of the processes of a job that are not empty."""
    text = (job.directory / "output.log").read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines() if line.strip()] or ["no output"]


def _difference(straight: Trace, stopped: Trace, again: Trace | None = None) -> Difference | None:
    """Return the first difference of an interrupted run; a fit that starts from scratch would have none otherwise."""
    interrupted: dict[int, str] = {}
    for record in stopped:
        if record["kind"] == "stopped":
            interrupted[record["fit"]] = record["stop"]
        elif record["kind"] == "not stopped":
            return Difference("the stop", record["stop"], "not saved")
        elif record["kind"] == "started" and record["run"] == 0 and record["fit"] in interrupted:
            after = interrupted.pop(record["fit"])
            if record["restored"] is None:
                return Difference("the start", after, "not restored")
    if again is None:
        return first_difference(straight, stopped)
    return first_difference(straight, stopped, varying_fields(straight, again), varying_attributes(straight, again))


def _reached(trace: Trace) -> tuple[str, ...]:
    return tuple(record["stop"] for record in trace if record["kind"] == "stopped")


def _inexact(result: CheckResult, difference: Difference) -> CheckResult:
    return replace(
        result,
        verdict=Verdict.INEXACT,
        reason=_reason(difference),
        remedy=_remedy(difference),
        difference=difference,
    )


def _undetermined(result: CheckResult, difference: Difference | None, seeded: bool) -> CheckResult:
    what = "" if difference is None else f": {difference.describe()}"
    remedy = (
        "use deterministic algorithms, `Trainer(deterministic=True)`"
        if seeded
        else "call `seed_everything(..., workers=True)` before the model and the data are created"
    )
    reason = f"two uninterrupted runs of the script differ{what}"
    return replace(result, verdict=Verdict.UNDETERMINED, reason=reason, remedy=remedy, difference=difference)


def _reason(difference: Difference) -> str:
    if difference.what == "not restored":
        return f"a process that was {difference.after} was not resumed"
    if difference.what == "failed":
        return f"the process that resumed after it was {difference.after} failed: {difference.found.rstrip('.')}"
    if difference.what == "not saved":
        return f"the state could not be saved where it should have been {difference.after}"
    return f"after it was {difference.after}, the training differs first in {difference.describe()}"


def _remedy(difference: Difference) -> str:
    """Return what to change in the script, by what differed first."""
    if difference.what == "failed":
        return "fix the error; what a hook needs has to exist before the state is loaded"
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
