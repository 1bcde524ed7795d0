"""One process of a supervised command: its environment, error output, signals and exit code."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning_green.ledger.run_directory import (
    ATTEMPT_VARIABLE,
    FORCE_VARIABLE,
    RESUME_VARIABLE,
    RUN_DIR_VARIABLE,
    SUPERVISED_VARIABLE,
    RunDirectory,
    run_directories,
)
from lightning_green.supervisor.command import Command
from lightning_green.utilities.clock import CLOCK_VARIABLE

POLL_SECONDS = 0.1
HASH_SEED_VARIABLE = "PYTHONHASHSEED"
LOCK_FILE = "child.lock"
ERROR_FILE = "stderr.log"
TRACEBACK_START = "Traceback (most recent call last)"
TRACEBACK_BYTES = 65536
MISSING_SCRIPT = re.compile(
    r"can't open file '[^'\n]+': \[Errno 2\] No such file or directory"  # Python
    r"|(?<=: )No module named \S+$"  # `python -m`
    r"|(?<=sh: )\S+: No such file or directory$"  # bash
    r"|cannot open \S+: No such file$"  # sh
)
"""What an interpreter reports in its last line about a script that does not exist; it has no traceback."""
MISSING_CODES = (1, 2, 126, 127)
"""Its exit codes: those of Python, and of a shell."""


class CommandStartError(RuntimeError):
    """The command cannot be started."""


@dataclass(frozen=True)
class ChildResult:
    """How a child process ended.

    Args:
        code: Exit code; negative for a signal.
        traceback: Last traceback in its error output, the line about a missing script, or an empty string.

    """

    code: int
    traceback: str


class ChildProcess:
    """Runs a command once.

    Error output goes to a file whose new content is copied to the terminal. A pipe would break when the supervisor is
    killed, and the training has to survive that.

    Args:
        command: The command.
        home: Directory of its runs.
        environment: Environment variables of the process.

    """

    def __init__(self, command: Command, home: Path, environment: Mapping[str, str]) -> None:
        self._command, self._home, self._environment = command, home, environment
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, beat: Callable[[], None]) -> ChildResult:
        """Run the command until it ends.

        Args:
            beat: Called every tenth of a second.

        Raises:
            CommandStartError: If the command cannot be started.

        """
        path = self._home / ERROR_FILE
        with open(path, "ab") as errors:
            start = errors.tell()
            # The process inherits this lock and keeps it until it ends. It marks the process as running before the
            # training has locked its run directory.
            with open(self._home / LOCK_FILE, "ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                try:
                    self._process = subprocess.Popen(
                        self._command.words, env=dict(self._environment), stderr=errors, pass_fds=(lock.fileno(),)
                    )
                except OSError as error:
                    raise CommandStartError(
                        f"`{self._command.words[0]}` cannot be started: {error.strerror}. Check the command after `--`."
                    ) from error
        with open(path, "rb") as copied:
            copied.seek(start)
            ended = False
            while not ended:
                ended = _has_ended(self._process)
                _copy_to_terminal(copied.read())
                beat()
        return ChildResult(self._process.returncode, _last_traceback(path, start, self._process.returncode))

    def send_signal(self, number: int) -> None:
        """Send a signal to the process if it is running."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


def child_environment(home: Path, attempt: str, force: bool, clock: str | None) -> dict[str, str]:
    """Return the environment variables of a child process.

    Args:
        home: Directory of the runs of the command.
        attempt: Attempt of the supervisor, ``<session>/<number>``.
        force: Whether to continue with changed values.
        clock: Specification of the simulated clock; None for the system clock.

    """
    environment = {
        HASH_SEED_VARIABLE: hash_seed(str(home)),
        **os.environ,
        RUN_DIR_VARIABLE: str(home),
        SUPERVISED_VARIABLE: str(os.getpid()),
        ATTEMPT_VARIABLE: attempt,
        RESUME_VARIABLE: "1",
    }
    if force:
        environment[FORCE_VARIABLE] = "1"
    if clock is not None:
        environment[CLOCK_VARIABLE] = clock
    # A script that creates its W&B run before `fit` is too early for `continue_loggers` to set the id.
    if len(ids := _wandb_ids(home)) == 1:
        environment = {"WANDB_RUN_ID": ids.pop(), "WANDB_RESUME": "allow", **environment}
    return environment


def hash_seed(text: str) -> str:
    """Return a value of ``PYTHONHASHSEED``, with which sets have the same order in each start of a command.

    Args:
        text: What the value depends on.

    """
    return str(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big"))


def is_child_running(home: Path) -> bool:
    """Return whether a child process of an earlier supervisor is still running."""
    with open(home / LOCK_FILE, "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _wandb_ids(home: Path) -> set[str]:
    """Return the ids of all W&B runs of a command."""
    identities = [RunDirectory(path).record.get("loggers", {}) for path in run_directories(home)]
    return {str(value) for loggers in identities for key, value in loggers.items() if key.endswith(".WandbLogger")}


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _copy_to_terminal(data: bytes) -> None:
    if data:
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()


def _last_traceback(path: Path, start: int, code: int) -> str:
    """Return the last traceback or the line about a missing script in the error output after ``start``, or ``""``."""
    with open(path, "rb") as errors:
        errors.seek(max(start, errors.seek(0, os.SEEK_END) - TRACEBACK_BYTES))
        text = errors.read().decode(errors="replace")
    position = text.rfind(TRACEBACK_START)
    if position >= 0:
        return text[position:]
    last = text.rstrip().rpartition("\n")[2]
    missing = MISSING_SCRIPT.search(last) if code in MISSING_CODES else None  # others print such lines as warnings
    return "" if missing is None else missing[0]
