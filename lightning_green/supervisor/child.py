"""One process of a supervised command: its environment, signals and exit code."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from lightning_green.ledger.run_directory import (
    ATTEMPT_VARIABLE,
    FORCE_VARIABLE,
    RESTARTED_VARIABLE,
    RESUME_VARIABLE,
    RUN_DIR_VARIABLE,
    SUPERVISED_VARIABLE,
    read_record,
    run_directories,
)
from lightning_green.supervisor.command import Command
from lightning_green.supervisor.launchers.launcher import Launcher
from lightning_green.supervisor.launchers.local import (
    ALLOCATION_VARIABLE,
    RELEASES_VARIABLE,
    STARTED_VARIABLE,
    allocation,
)
from lightning_green.supervisor.output import Output
from lightning_green.supervisor.processes import CommandProcesses, describe, reap_orphans
from lightning_green.supervisor.signals import Signals
from lightning_green.supervisor.stopping import Stopping
from lightning_green.supervisor.survivors import STOP_SECONDS
from lightning_green.utilities.clock import CLOCK_VARIABLE
from lightning_green.utilities.processes import ProcessId
from lightning_green.utilities.trusted_files import is_file_name

POLL_SECONDS = 1.0
"""How often the heartbeat is looked at while nothing else happens."""
HASH_SEED_VARIABLE = "PYTHONHASHSEED"
LOCK_FILE = "child.lock"
TRACEBACK_START = "Traceback (most recent call last)"
MISSING_SCRIPT = re.compile(
    r"can't open file '[^'\n]+': \[Errno 2\] No such file or directory"  # Python
    r"|(?<=: )No module named \S+$"  # `python -m`
    r"|(?<=sh: )\S+: No such file or directory$"  # bash
    r"|cannot open \S+: No such file$"  # sh
)
"""What an interpreter reports in its last line about a script that does not exist; it has no traceback."""
MISSING_CODES = (1, 2, 126, 127)
"""Its exit codes: those of Python, and of a shell."""
NOT_EXECUTED_CODES = (126, 127)
"""Exit codes of a shell, and of programs such as ``env``, for a command that cannot be executed or does not exist."""
SYNTAX_ERROR = re.compile(
    r'^  File "[^"\n]+", line \d+\n(?:    .*\n)*(?:Syntax|Indentation|Tab)Error: .*\n?\Z', re.MULTILINE
)
LAUNCHER_ERROR = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError"


class CommandStartError(RuntimeError):
    """The command cannot be started.

    Args:
        message: What is wrong and what to do.
        code: Exit code of a shell: 127 if the command does not exist, 126 if it cannot be executed.

    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class ChildResult:
    """How a child process ended.

    Args:
        code: Exit code; negative for a signal.
        traceback: Last traceback in its error output, the line about a missing script, or an empty string.

    """

    code: int
    traceback: str

    @property
    def exit_code(self) -> int:
        """Exit code as reported by a shell: 128 + N for signal N."""
        return 128 - self.code if self.code < 0 else self.code


class ChildProcess:
    """Runs a command once, in a session of its own: signals to the terminal or to this process group do not reach it.

    Args:
        command: The command.
        home: Directory of its runs.
        environment: Environment variables of the process, from ``child_environment``.
        print_line: Receives messages for the user.
        stop_seconds: How long it may take to save its state and to exit after a signal.
        watch: Called several times a second with the processes of the command.

    """

    def __init__(
        self,
        command: Command,
        home: Path,
        environment: Mapping[str, str],
        print_line: Callable[[str], None] = print,
        stop_seconds: float = STOP_SECONDS,
        watch: Callable[[CommandProcesses], None] = lambda processes: None,
    ) -> None:
        self._command, self._home, self._environment = command, home, {**environment, **command.to_environment()}
        self._attempt = environment.get(ATTEMPT_VARIABLE, "")
        self._print_line, self._stop_seconds, self._watch = print_line, stop_seconds, watch

    def run(self, beat: Callable[[], None], signals: Signals) -> ChildResult:
        """Run the command until it ends.

        Args:
            beat: Called several times a second.
            signals: Signals that are passed on to the command.

        Raises:
            CommandStartError: If the command cannot be started.

        """
        output = Output(self._home)
        try:
            process = self._start(output)
        except OSError as error:
            output.end()
            lock = self._home / LOCK_FILE
            if str(error.filename) == str(lock):
                raise CommandStartError(f"{lock} cannot be replaced ({error.strerror}). Remove it.", 1) from error
            code = 127 if error.errno == errno.ENOENT else 126
            what = f"`{self._command.words[0]}` cannot be started: {error.strerror}. Check the command after `--`."
            raise CommandStartError(what, code) from error
        processes = CommandProcesses(self._home, self._attempt, process.pid)
        stopping = Stopping(processes, self._stop_seconds, self._print_line)
        before, signals.send = signals.send, processes.send
        try:
            while process.poll() is None:
                stopping.pass_on(signals)
                self._watch(processes)
                beat()
                reap_orphans(process.pid)
                signals.wait_for_child(POLL_SECONDS)
        finally:
            signals.send = before
            self._end(process, processes)
        if signals.stop is None:
            self._name_left()
        return ChildResult(process.returncode, last_traceback(output.end(), process.returncode))

    def _start(self, output: Output) -> subprocess.Popen[bytes]:
        try:
            with _child_lock(self._home) as lock:
                process = subprocess.Popen(
                    self._command.words,
                    env=dict(self._environment),
                    stdout=output.stdout,
                    stderr=output.stderr,
                    pass_fds=(lock.fileno(),),
                    start_new_session=True,
                )
                lock.write(json.dumps(asdict(ProcessId.of(process.pid))))
        finally:
            output.started()
        return process

    def _end(self, process: subprocess.Popen[bytes], processes: CommandProcesses) -> None:
        """End the command if this process fails: it would continue without a supervisor."""
        if process.poll() is None:
            processes.stop(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(self._stop_seconds)
            processes.send(signal.SIGKILL)

    def _name_left(self) -> None:
        """Name processes in the background, which are left alone unless a signal stops the run."""
        left = CommandProcesses(self._home, self._attempt).in_background()
        if left:
            self._print_line(f"The command has left processes in the background: {describe(left)}.")


def why_not_executable(name: str) -> tuple[str, int] | None:
    """Return why a command cannot be started and the exit code of a shell, as far as it is known; None if it can be."""
    if shutil.which(name) is not None:
        return None
    found = os.path.exists(name) if os.sep in name else False
    why, code = ("is not executable", 126) if found else ("does not exist", 127)
    return f"The command `{name}` {why}. Check it after `--`.", code


def child_environment(
    home: Path,
    attempt: str,
    force: bool,
    clock: str | None,
    launcher: Launcher | None = None,
    began: float | None = None,
    restarts: bool = False,
) -> dict[str, str]:
    """Return the environment variables of a child process.

    Args:
        home: Directory of the runs of the command.
        attempt: Attempt of the supervisor, ``<session>/<number>``.
        force: Whether to continue with changed values.
        clock: Specification of the simulated clock; None for the system clock.
        launcher: Launcher that the supervisor waits with; None for one that keeps the machine.
        began: Time from which this start has waited for its machine, in seconds since the epoch; None for now.
        restarts: Whether the supervisor, or its launcher, has started the command before, and it has trained.

    """
    releases = launcher is not None and launcher.can_release
    environment = {
        HASH_SEED_VARIABLE: hash_seed(str(home)),
        **os.environ,
        RUN_DIR_VARIABLE: str(home),
        SUPERVISED_VARIABLE: str(os.getpid()),
        STARTED_VARIABLE: repr(time.time() if began is None else began),
        ALLOCATION_VARIABLE: "" if releases else allocation() or "",
        ATTEMPT_VARIABLE: attempt,
        RESUME_VARIABLE: "1",
    }
    for name in (RELEASES_VARIABLE, RESTARTED_VARIABLE):  # of a supervisor that has started this one
        environment.pop(name, None)
    if restarts:
        environment[RESTARTED_VARIABLE] = "1"
    if launcher is not None and releases:
        environment[RELEASES_VARIABLE] = launcher.name
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


@contextmanager
def _child_lock(home: Path) -> Iterator[IO[str]]:
    """Open a file that the child process inherits with a lock on it, which is held as long as it or its children run.

    It marks the process as running before the training has locked its run directory. Each process has a new file:
    a program in the background may still hold the lock of an earlier one.
    """
    path = home / LOCK_FILE
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def is_child_running(home: Path) -> bool:
    """Return whether a child process of an earlier supervisor is still running, other than in the background."""
    try:
        with open(os.open(home / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return not _process_in(lock.read(4096)).is_gone
    except OSError:  # there is none
        return False
    return False


def _process_in(text: str) -> ProcessId:
    """Return the process that a lock file names; one that may be running if it names none."""
    try:
        return ProcessId(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return ProcessId("", 0, "")


def _wandb_ids(home: Path) -> set[str]:
    """Return the ids of all W&B runs of a command."""
    identities = [read_record(path).get("loggers", {}) for path in run_directories(home)]
    ids = {value for loggers in identities for key, value in loggers.items() if key.endswith(".WandbLogger")}
    return set(filter(is_file_name, ids))


def last_traceback(text: str, code: int) -> str:
    """Return the last traceback in an error output, the line about a missing script, or ``""``.

    Args:
        text: End of the error output.
        code: Exit code of the process.

    """
    text, by_launcher, _ = text.partition(LAUNCHER_ERROR)
    if by_launcher:  # the launcher ends with a traceback of its own
        text = text[: text.rfind(TRACEBACK_START)]
    position = max(text.rfind(TRACEBACK_START), _position_of_syntax_error(text))
    if position >= 0:
        return text[position:]
    lines = text.splitlines() if by_launcher else text.rstrip().splitlines()[-1:]
    if code in NOT_EXECUTED_CODES and lines:  # of a shell or `env`
        return lines[-1]
    found = [one for line in lines if (one := MISSING_SCRIPT.search(line))] if code in MISSING_CODES else []
    return found[-1][0] if found else ""  # others print such lines as warnings


def _position_of_syntax_error(text: str) -> int:
    """Return where Python reports a script that it cannot compile, which it does without a traceback; or -1."""
    found = list(SYNTAX_ERROR.finditer(text))
    return found[-1].start() if found else -1
