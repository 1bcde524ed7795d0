"""A short start of a training, until its scheduler has made the first plan."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from lightning_green.check.recorded_job import NOT_STARTED, RecordedJob, read_recorded_job
from lightning_green.check.result import CheckFailedError
from lightning_green.check.scratch import Mirror
from lightning_green.check.training import offline_loggers
from lightning_green.ledger.events import Decision, Started
from lightning_green.ledger.run_directory import run_directories
from lightning_green.ledger.tail import LedgerTail
from lightning_green.supervisor.child import child_environment
from lightning_green.supervisor.command import Command
from lightning_green.supervisor.launchers import Launcher
from lightning_green.supervisor.processes import CommandProcesses
from lightning_green.supervisor.run_directory import open_run_directory
from lightning_green.throttle.restore import restore_left_over

_POLL_SECONDS = 0.2
_STEPS, _STEP_SECONDS = 10, 30.0
"""After this many steps and seconds, a training without a decision has no scheduler that plans."""
_STOP_SECONDS = 30.0
_TAIL_LINES = 15


def first_job(
    command: Sequence[str],
    timeout: float = 600.0,
    launcher: Launcher | None = None,
    print_line: Callable[[str], None] = print,
) -> RecordedJob:
    """Start a training command in a copy of the working directory, and return the job of its first plan.

    The command is stopped as soon as the scheduler has planned: after a few batches, whose time it measures. What it
    has written to the copy is removed.

    Args:
        command: The training command.
        timeout: Seconds until the first plan, at most.
        launcher: Launcher that the run would wait with; None for one that keeps the machine.
        print_line: Receives a message for each device that had to be restored.

    Raises:
        CheckFailedError: If the command fails or ends before, or there is no plan in time.
        NoJobError: If the training makes no plan.

    """
    with tempfile.TemporaryDirectory(prefix="lightning_green_dry_run_", ignore_cleanup_errors=True) as name:
        directory = Path(name).resolve()
        run_dir = directory / "run"
        working = Mirror(Path.cwd(), directory / "tree").path
        lock = open_run_directory(run_dir, fresh=False, command=Command(tuple(command), str(working), None))
        attempt = f"dry-run-{os.getpid()}/1"
        environment = child_environment(run_dir, attempt, force=False, clock=None, launcher=launcher)
        environment |= offline_loggers(directory) | {"PWD": str(working)}
        with open(directory / "output.log", "wb") as log:
            process = subprocess.Popen(
                list(command), cwd=working, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            code = _wait_for_plan(process, run_dir, timeout)
        finally:
            _stop(process, CommandProcesses(run_dir, attempt, process.pid))
            lock.unlock()
            for path in run_directories(run_dir):
                for message in restore_left_over(path):
                    print_line(message)
        if code:
            raise CheckFailedError(
                f"The command failed with exit code {code} before the first plan. Its last lines:\n"
                f"{_tail(directory / 'output.log')}"
            )
        found = read_recorded_job(run_dir, datetime.now(timezone.utc))
        return replace(found, job=replace(found.job, state="running"), state=NOT_STARTED)


def _wait_for_plan(process: subprocess.Popen[bytes], run_dir: Path, timeout: float) -> int | None:
    """Return when there is a decision, or none to wait for: None, or the exit code of a command that has failed."""
    end, ledger = time.monotonic() + timeout, LedgerTail(run_dir)
    started_at, steps = None, 0
    while True:
        code = process.poll()
        for event in ledger.all_events():
            if isinstance(event, Decision):
                return None
            if isinstance(event, Started) and started_at is None:
                started_at = time.monotonic()
            steps = max(steps, event.global_step or 0)
        if code is not None:
            return code
        if started_at is not None and steps >= _STEPS and time.monotonic() - started_at > _STEP_SECONDS:
            return None
        if time.monotonic() > end:
            raise CheckFailedError(f"There was no plan after {timeout:.0f} s. Allow more with --timeout.")
        time.sleep(_POLL_SECONDS)


def _stop(process: subprocess.Popen[bytes], processes: CommandProcesses) -> None:
    """Stop the command as a user does, so that it restores throttled devices; then kill the rest of it."""
    try:
        processes.stop(signal.SIGTERM)
        end = time.monotonic() + _STOP_SECONDS
        while (process.poll() is None or processes.are_running()) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
    finally:
        processes.send(signal.SIGKILL)
        process.wait()


def _tail(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()] or ["no output"]
    return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])
