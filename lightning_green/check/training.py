"""Starts the processes of a training: one without a stop, or one after each stop."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lightning_green.check.differences import Trace
from lightning_green.check.job import JOB_VARIABLE, Job, Stop
from lightning_green.check.result import CheckFailedError
from lightning_green.check.scratch import Mirror
from lightning_green.ledger.run_directory import RANDOM_STATES, RESUME_VARIABLE, RUN_DIR_VARIABLE
from lightning_green.supervisor.child import HASH_SEED_VARIABLE, hash_seed
from lightning_green.utilities.clock import CLOCK_VARIABLE

_CLOCK = "simulated:start=2024-05-02T00:00:00+00:00,batch=1,checkpoint=0,restart=0"
_TAIL_LINES = 15


@dataclass(frozen=True)
class Training:
    """What the processes of one run of the script did.

    Args:
        trace: Their records.
        failure: The last line of a process that failed after a stop; empty if none did.
        missed: Stops that no process reached, for people.
        original: The files of the working directory at the beginning of the check.
        directory: The copy of the working directory in which the script ran.

    """

    trace: Trace
    failure: str
    missed: tuple[str, ...]
    original: Mirror
    directory: Path

    @property
    def reached(self) -> tuple[str, ...]:
        """The stops that a process reached, for people."""
        return tuple(record["stop"] for record in self.trace if record["kind"] == "stopped")


class Starter:
    """Starts a training command for the runs of a check.

    Args:
        command: The command.
        epochs: Epochs of a fit, at most.
        batches: Training batches of an epoch, at most.
        timeout: Seconds that one process may take.
        progress: Called with a line before each process starts.
        keep: Whether the copies of the working directory and the outputs are kept.

    Attributes:
        starts: Number of processes that were started.

    """

    def __init__(
        self,
        command: Sequence[str],
        epochs: int,
        batches: int,
        timeout: float,
        progress: Callable[[str], None],
        keep: bool = False,
    ) -> None:
        self.command, self._epochs, self._batches = list(command), epochs, batches
        self._timeout, self._progress, self._keep = timeout, progress, keep
        self._first_states: Path | None = None
        self._original: Mirror | None = None
        self.starts = 0

    def train(self, directory: Path, stops: tuple[Stop, ...], what: str) -> Training:
        """Run the command, and again after each stop.

        Args:
            directory: Directory of the job.
            stops: Where the processes stop.
            what: What is run, for people.

        Raises:
            CheckFailedError: If the command fails before it was stopped, or the working directory cannot be copied.

        """
        if self._original is None:  # all runs use the files of this moment
            self._original = Mirror(Path.cwd(), directory.parent / "original")
        original = self._original
        job = Job(directory, stops, self._epochs, self._batches)
        job.write()
        states = directory / "run" / RANDOM_STATES
        if self._first_states is not None and self._first_states.is_dir():  # as in the restarts of a run
            shutil.copytree(self._first_states, states)
        self._first_states = self._first_states or states
        working = original.copy(directory / "tree")
        failure = ""
        for start in range(len(stops) + 1):
            self._progress(what if not stops else f"{what}, start {start + 1} of {len(stops) + 1}")
            before = job.next_stop
            code = self._start(job, working)
            if job.next_stop == before:
                if code != 0 and start == 0:
                    tail = "\n".join(f"    {line}" for line in _lines(job)[-_TAIL_LINES:])
                    names = ", ".join(original.left_out)
                    missing = f" Not copied, because there are too many weights: {names}." if names else ""
                    raise CheckFailedError(
                        f"The command failed with exit code {code} ({what}).{missing} Its last lines:\n{tail}"
                    )
                failure = "" if code == 0 else _lines(job)[-1].strip()
                break
        trace = job.trace()
        reached = sum(record["kind"] == "stopped" for record in trace)
        missed = tuple(stop.describe() for stop in stops[reached:])
        if not self._keep:  # disk space
            for name in ("tree", "outputs"):
                shutil.rmtree(directory / name, ignore_errors=True)
        return Training(trace, failure, missed, original, working)

    def _start(self, job: Job, working: Path) -> int:
        self.starts += 1
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LIGHTNING_GREEN_")}
        environment.setdefault(HASH_SEED_VARIABLE, hash_seed(""))
        environment |= {
            JOB_VARIABLE: str(job.directory),
            RUN_DIR_VARIABLE: str(job.directory / "run"),
            RESUME_VARIABLE: "1",
            CLOCK_VARIABLE: _CLOCK,
            "PWD": str(working),
            **offline_loggers(job.directory),
        }
        with open(job.directory / "output.log", "ab") as log:
            try:
                process = subprocess.Popen(
                    self.command, cwd=working, env=environment, stdout=log, stderr=log, start_new_session=True
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


def offline_loggers(directory: Path) -> dict[str, str]:
    """Return environment variables with which the loggers of a short run write to a directory only."""
    return {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(directory),
        "MLFLOW_TRACKING_URI": (directory / "mlruns").as_uri(),
        "COMET_MODE": "offline",
    }


def _lines(job: Job) -> list[str]:
    """Return the lines of the output of the processes of a job that are not empty."""
    text = (job.directory / "output.log").read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines() if line.strip()] or ["no output"]
