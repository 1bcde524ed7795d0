"""Runs a short version of a training, uninterrupted and interrupted, and compares the two."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_green.check.differences import Difference, Trace, first_difference, varying_attributes, varying_fields
from lightning_green.check.job import Stop
from lightning_green.check.result import CheckFailedError, CheckResult, Verdict, inexact, undetermined
from lightning_green.check.stops import choose_stops
from lightning_green.check.training import Starter
from lightning_green.run.pause_rule import file_digests

_IGNORED = {"metrics": "metric", "random": "random state"}


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
        self._keep = None if keep is None else keep.absolute()
        self._starter = Starter(command, epochs, batches, timeout, progress, keep is not None)

    def run(self) -> CheckResult:
        """Run the check.

        Raises:
            CheckFailedError: If the command fails without a stop, trains nothing that can be checked, its files are
                changed meanwhile, or ``keep`` is not empty.

        """
        began = time.monotonic()
        if self._keep is not None:
            self._keep.mkdir(parents=True, exist_ok=True)
            if any(self._keep.iterdir()):
                raise CheckFailedError(f"{self._keep} is not empty. Choose another directory with --keep.")
        temporary = tempfile.TemporaryDirectory(prefix="lightning_green_check_", ignore_cleanup_errors=True)
        with temporary if self._keep is None else nullcontext(str(self._keep)) as directory:
            runs = _Runs(self._starter, Path(directory).resolve())
            result = self._judge(runs)
            if runs.files() != result.files:  # of files outside the working directory, which are not copied
                raise CheckFailedError("The files of the script were changed during the check. Check it again.")
        return replace(result, starts=self._starter.starts, seconds=time.monotonic() - began)

    def _judge(self, runs: _Runs) -> CheckResult:
        fits = runs.fits
        if not fits:
            raise CheckFailedError(
                "No `Trainer.fit` was seen. Install Lightning Green into the Python environment of the command; "
                "`fast_dev_run=True` and fits of other libraries are not checked."
            )
        first = fits[min(fits)]
        result = CheckResult(
            Verdict.EXACT,
            trainings=len({record["run"] for record in runs.straight.trace}),
            fits=len(fits),
            epochs=first["epochs"] or 0,
            batches=0 if math.isinf(first["batches"]) else int(first["batches"]),
            loggers=runs.collect("loggers"),
            linked=tuple(runs.straight.original.linked),
            left_out=tuple(runs.straight.original.left_out),
            files=runs.files(),
        )
        if not runs.saved_fits:
            why = next((record["why_not_saved"] for record in fits.values() if record["why_not_saved"]), None)
            reason = why or "Trainer(enable_checkpointing=False) saves nothing"
            return replace(result, verdict=Verdict.NOT_SAVED, reason=reason)
        reason = next((one["why_epochs_only"] for one in runs.saved_fits.values() if one["why_epochs_only"]), None)
        if reason is not None:
            result = replace(result, verdict=Verdict.INEXACT, reason=reason)
        else:
            result = runs.compare(result, epochs_only=False)
        if result.verdict is not Verdict.INEXACT or not runs.stops(epochs_only=True):
            return result
        between = runs.compare(result, epochs_only=True)
        if between.verdict is Verdict.EXACT:  # the reason is why the middle of an epoch is not
            return replace(between, verdict=Verdict.EPOCHS)
        if reason is None and between.verdict is not Verdict.INEXACT:  # what was found before remains true
            return replace(result, stops=between.stops, missed=between.missed)
        return between


class _Runs:
    """The runs of one check; those without a stop are made once."""

    def __init__(self, starter: Starter, directory: Path) -> None:
        self._starter, self._directory = starter, directory
        self.straight = starter.train(directory / "straight", (), "uninterrupted")

    @cached_property
    def again(self) -> Trace:
        """Trace of a second uninterrupted run."""
        return self._starter.train(self._directory / "again", (), "uninterrupted, again").trace

    @cached_property
    def fits(self) -> dict[int, dict[str, Any]]:
        """The records of the starts of the fits of the first training, by their number."""
        trace = self.straight.trace
        return {one["fit"]: dict(one) for one in trace if one["kind"] == "started" and one["run"] == 0}

    @cached_property
    def saved_fits(self) -> dict[int, dict[str, Any]]:
        """The fits whose state can be saved; the others are not paused."""
        return {number: record for number, record in self.fits.items() if record["can_save"]}

    def collect(self, name: str) -> tuple[str, ...]:
        """Return all names in a list of the records, once."""
        return tuple(sorted({one for record in self.straight.trace for one in record.get(name, ())}))

    def files(self) -> dict[str, str]:
        """Return digests of the files of the script and the command: those of the copy by their relative path."""
        copy = f"{self.straight.directory}{os.sep}"
        names = [file.removeprefix(copy) for file in self.collect("files")]
        return file_digests(self._starter.command, names, str(self.straight.original.path))

    def stops(self, epochs_only: bool) -> tuple[Stop, ...]:
        """Return where the processes of an interrupted run stop."""
        changes = {epoch for record in self.straight.trace for epoch in record.get("changes", ())}
        return choose_stops(self.saved_fits, sorted(changes), epochs_only)

    def compare(self, result: CheckResult, epochs_only: bool) -> CheckResult:
        """Return a result with the verdict on one interrupted run."""
        what = "interrupted between epochs" if epochs_only else "interrupted"
        directory = self._directory / ("epochs" if epochs_only else "batches")
        stopped = self._starter.train(directory, self.stops(epochs_only), what)
        result = replace(result, stops=(*result.stops, *stopped.reached), missed=(*result.missed, *stopped.missed))
        if not stopped.reached:
            reason = "the training is too short to be stopped"
            return replace(result, verdict=Verdict.UNDETERMINED, reason=reason)
        if stopped.failure:
            failed = Difference("the start", stopped.reached[-1], "failed", found=stopped.failure)
            return inexact(result, failed)
        if _difference(self.straight.trace, stopped.trace) is None:
            return replace(result, verdict=Verdict.EXACT)
        varying = varying_fields(self.straight.trace, self.again)
        # A generator without a seed that the training draws from makes other fields differ as well.
        ignored = {(field, name) for field, name in varying if field in _IGNORED}
        result = replace(result, ignored=tuple(sorted(f"{_IGNORED[field]} {name}" for field, name in ignored)))
        difference = first_difference(self.straight.trace, self.again, ignored)
        if difference is not None:
            seeded = all(record["seeded"] for record in self.fits.values())
            return undetermined(result, difference, seeded)
        difference = _difference(self.straight.trace, stopped.trace, self.again)
        return replace(result, verdict=Verdict.EXACT) if difference is None else inexact(result, difference)


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
