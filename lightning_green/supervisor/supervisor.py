"""Starts a command, reads in the ledgers of its trainings how they ended, waits, and starts it again."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_green.ledger.events import StateEvent
from lightning_green.ledger.run_directory import (
    ATTEMPT_VARIABLE,
    FORCE_VARIABLE,
    RESUME_VARIABLE,
    RUN_DIR_VARIABLE,
    SUPERVISED_VARIABLE,
    RunFolder,
    remove_kept_files,
    run_directories,
    set_aside,
)
from lightning_green.supervisor.attempt import Attempt, Outcome, newest
from lightning_green.supervisor.command import (
    Command,
    FitKey,
    OtherCommandError,
    Trainings,
    are_alive,
    describe_fit,
    read_command,
    write_command,
)
from lightning_green.supervisor.waiting import Waiting
from lightning_green.throttle.restore import restore_left_over
from lightning_green.utilities.clock import CLOCK_VARIABLE, Clock, SystemClock, clock_from_spec
from lightning_green.utilities.durations import format_duration

FINISHED, FAILED = 0, 1
MAX_RESTARTS = 3
LONGEST_BACK_OFF_SECONDS = 300.0
POLL_SECONDS = 0.1
CHILD_LOCK = "child.lock"


class _CommandError(RuntimeError):
    """The command is not one."""


class Supervisor:
    """Runs one command until it has ended with 0 and none of its trainings is paused.

    The command may train once, several times in sequence or in parallel, or not at all. Each training has a run of its
    own: the first one in the given directory, the others below it.

    Args:
        command: The command line to start, such as ``["python", "train.py"]``.
        folder: The directory of the runs.
        max_restarts: Crashes in a row, without a new optimizer step between them, after which it gives up.
        force: Continue although the model, the optimizer or the data have changed, with the new values.
        clock: Simulated clock that is handed to the child; None for the system's.
        say: Receives what the user should know, a line at a time.

    """

    def __init__(
        self,
        command: Sequence[str],
        folder: RunFolder,
        max_restarts: int = MAX_RESTARTS,
        force: bool = False,
        clock: str | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.command, self.folder = Command(tuple(command), os.getcwd(), clock), folder
        self.max_restarts, self.force, self.say = max_restarts, force, say
        self._session, self._attempt = uuid.uuid4().hex[:8], 0
        self._child: subprocess.Popen[bytes] | None = None
        self._signal: int | None = None
        self._wake = threading.Event()

    def run(self) -> int:
        """Start, wait and start again until the command has finished; return the exit code.

        0: finished. The command's own code (128 + N for signal N): its trainings finished and it failed after them. 1:
        given up. 130 or 143: stopped by SIGINT or SIGTERM, and the same line continues.
        """
        old = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._note(None)
            code = self._run()
            if self._signal is None:
                self._note(code)
            return code
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _note(self, code: int | None) -> None:
        try:
            write_command(self.folder.path, self.command, code)
        except OSError as error:
            self.say(
                f"The command could not be recorded in {self.folder.path} ({error.strerror}). It runs all the same."
            )

    def _run(self) -> int:
        seen = self._look()
        if self._wait_for_survivor() and self._signal is None:
            seen = self._look()
            ended = all(history.ended for history in seen.histories.values() if history.states)
            if seen.are_finished and ended and not seen.are_restored:  # nobody has seen its exit code
                self.say("That training has finished. To train again, add --fresh.")
                return FINISHED
        if seen.are_restored:
            self.say("The trainings have finished, so only what follows them runs. To train again, add --fresh.")
        failures, best, last_trace = 0, seen.steps, ""
        while True:
            seen = self._look()  # each time: a person may have continued a run by hand
            if self._signal is None and seen.paused:
                waiting = Waiting(seen.paused, self.say)
                waiting.wait(self._clock(waiting.path), self._wake, self.folder.beat)
                seen = self._look()
            if self._signal is not None:
                return self._stopped()
            try:
                attempt = self._start(seen)
            except _CommandError as error:
                self.say(str(error))
                return FAILED
            seen = attempt.after
            if attempt.outcome == Outcome.FINISHED:
                self._say_what_is_left(attempt)
                return FINISHED
            if self._signal is not None:
                return self._stopped()
            if attempt.outcome == Outcome.PAUSED:
                failures, best = 0, max(best, seen.steps)
                continue
            if attempt.outcome == Outcome.NOT_CONTINUED:
                self.say(
                    f"The command ended with exit code 0 and did not continue these trainings: {_names(attempt.left)}. "
                    "Start the command that they were started with, or start from scratch with --fresh."
                )
                return FAILED
            if attempt.outcome == Outcome.FAILED_AFTERWARDS:
                self.say(f"The training finished; the script then ended with {attempt.ending}.")
                return attempt.code
            progress, best = seen.steps > best, max(best, seen.steps)
            failures = 1 if progress else failures + 1
            hopeless = self._why_hopeless(attempt, progress, last_trace, failures)
            if hopeless is not None:
                self.say(hopeless)
                return self._given_up(attempt)
            last_trace = "" if progress else attempt.trace
            delay = min(LONGEST_BACK_OFF_SECONDS, 2.0 ** (failures - 1))
            self.say(f"Attempt {self._attempt} ended: {attempt.why}. Starting again in {format_duration(delay)}.")
            self._clock(self.folder.path).sleep(delay, self._wake)

    def _why_hopeless(self, attempt: Attempt, progress: bool, last_trace: str, failures: int) -> str | None:
        """Return why another start would not help; None where it may."""
        if attempt.hopeless_error is not None:
            return f"The command cannot start: {attempt.hopeless_error}. Fix the error and rerun the same command."
        if not progress and attempt.trace and attempt.trace == last_trace:
            return f"The same error came twice without a new step: {attempt.last_line}. It is not tried again."
        if failures > self.max_restarts:
            return f"Given up after {failures} failures in a row without a new step: {attempt.why}."
        return None

    @property
    def _token(self) -> str:
        return f"{self._session}/{self._attempt}"

    def _look(self) -> Trainings:
        return Trainings.of(self.folder.path)

    def _given_up(self, attempt: Attempt) -> int:
        """Return the exit code of giving up: the command's own where nothing is left to train."""
        if not attempt.after.are_restored or attempt.code == 0:
            return FAILED
        self.say(
            f"The training finished; the script then ended with {attempt.ending}. The same line runs what follows the "
            "training again, without training."
        )
        return attempt.exit_code

    def _say_what_is_left(self, attempt: Attempt) -> None:
        seen = attempt.after
        if not seen.states:
            self.say(
                "The command ended without training under a Lightning Green callback. Add EmissionsTracker() or "
                "CarbonScheduler() to the Trainer's callbacks, or start it without `lightning-green run`."
            )
        left = {key: state for key, state in seen.broken(seen.states).items() if key not in attempt.changed}
        if left:
            self.say(
                f"The command has finished. Trainings of earlier attempts that it did not continue: {_names(left)}."
            )
        for path in seen.histories:
            remove_kept_files(path)

    # -- one attempt --------------------------------------------------------------------------------------------------

    def _start(self, before: Trainings) -> Attempt:
        """Run the command once, and restore what a killed training left throttled."""
        self._attempt += 1
        code, trace = self._run_child()
        after = self._look()
        for path in after.histories:
            for line in restore_left_over(path):  # a child that was killed could not do it itself
                self.say(line)
        return Attempt(code, trace, before, after, self._token)

    def _run_child(self) -> tuple[int, str]:
        """Run the command to its end; return its exit code and the end of its last traceback."""
        environment = {
            **os.environ,
            RUN_DIR_VARIABLE: str(self.folder.path),
            SUPERVISED_VARIABLE: str(os.getpid()),
            ATTEMPT_VARIABLE: self._token,
            RESUME_VARIABLE: "1",
        }
        if self.force:
            environment[FORCE_VARIABLE] = "1"
        if self.command.clock is not None:
            environment[CLOCK_VARIABLE] = self.command.clock
        # For a script that makes its W&B run before `fit`, where a logger can still be given its id.
        if len(ids := self._wandb_ids()) == 1:
            environment = {"WANDB_RUN_ID": ids.pop(), "WANDB_RESUME": "allow", **environment}
        # Errors go to a file that is shown as it grows, not through a pipe: a pipe would break with its reader, and a
        # training must not notice that its supervisor was killed.
        path = self.folder.path / "stderr.log"
        with open(path, "ab") as errors:
            start = errors.tell()
            # The child inherits this lock and has it as long as it lives, also before it opens the run's folder:
            # another supervisor sees that it is there.
            with open(self.folder.path / CHILD_LOCK, "ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                try:
                    self._child = subprocess.Popen(
                        self.command.words, env=environment, stderr=errors, pass_fds=(lock.fileno(),)
                    )
                except OSError as error:
                    raise _CommandError(
                        f"`{self.command.words[0]}` cannot be started: {error.strerror}. Check the command after `--`."
                    ) from error
        with open(path, "rb") as shown:
            shown.seek(start)
            while True:
                ended = self._poll()
                self._show(shown.read())
                self.folder.beat()
                if ended:
                    break
        code = self._child.returncode
        self._child = None
        with open(path, "rb") as errors_again:
            errors_again.seek(max(start, errors_again.seek(0, os.SEEK_END) - 65536))
            text = errors_again.read().decode(errors="replace")
        return code, text[text.rfind("Traceback (most recent call last)") :] if "Traceback (most" in text else ""

    def _wandb_ids(self) -> set[str]:
        """Return the ids of all W&B runs of this command."""
        known = [RunFolder(path).record.get("loggers", {}) for path in run_directories(self.folder.path)]
        return {str(one) for part in known for key, one in part.items() if key.endswith(".WandbLogger")}

    def _poll(self) -> bool:
        assert self._child is not None
        try:
            self._child.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True

    @staticmethod
    def _show(data: bytes) -> None:
        if data:
            sys.stderr.buffer.write(data)
            sys.stderr.buffer.flush()

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signal = number
        self._wake.set()
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def _wait_for_survivor(self) -> bool:
        """Wait for a training that outlived its supervisor; return whether there was one."""
        told = False
        while (are_alive(self.folder.path) or self._child_lives()) and self._signal is None:
            if not told:
                self.say(f"The training in {self.folder.path} is still running without its supervisor; waiting for it.")
                told = True
            self.folder.beat()
            self._wake.wait(POLL_SECONDS)
        return told

    def _child_lives(self) -> bool:
        with open(self.folder.path / CHILD_LOCK, "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _clock(self, path: Path) -> Clock:
        """Return the clock of a run, at the position that is kept in its directory."""
        spec = self.command.clock or RunFolder(path).record.get("clock")
        clock = SystemClock() if spec is None else clock_from_spec(spec)
        clock.bind(path)
        return clock

    # -- how it ends --------------------------------------------------------------------------------------------------

    def _stopped(self) -> int:
        assert self._signal is not None
        last = newest(self._look().states)
        step = 0 if last is None else last.global_step or 0
        options = [] if self.max_restarts == MAX_RESTARTS else ["--max-restarts", str(self.max_restarts)]
        again = self.command.line(self.folder.path, *options, *(["--force"] if self.force else []))
        self.say(
            f"Stopped at step {step} by {signal.Signals(self._signal).name}.\n  To continue:    {again}\n"
            f"  To start anew:  {self.command.line(self.folder.path, *options, '--fresh')}"
        )
        return 128 + self._signal


def open_folder(
    path: Path, fresh: bool, say: Callable[[str], None] = print, command: Command | None = None, force: bool = False
) -> RunFolder:
    """Return the directory of a command, locked for this supervisor; a finished or unwanted one is put aside first.

    A command is finished if it ended with 0. One that failed after its trainings is continued: they are restored, not
    trained again, and the script does what follows them.

    Raises:
        OSError: If the directory cannot be made or written.
        RunIsAliveError: If another supervisor, or a training that is not to be waited for, is in it.
        OtherCommandError: If it belongs to another command, unless ``force`` says to continue with this one.

    """
    folder = RunFolder(path)
    left = folder.was_left("supervisor")
    folder.lock("supervisor")
    recorded, seen = read_command(path), Trainings.of(path)
    # without a record of the command, somebody started a training here by hand
    finished = recorded.get("exit_code") == 0 if recorded else seen.are_finished and not left
    if seen.states and (fresh or (finished and not are_alive(path))):
        if fresh:
            for run in seen.histories:
                RunFolder(run).refuse_if_alive("run")
        folder.unlock()
        kept = set_aside(path)
        say(f"The {'finished' if finished else 'earlier'} run is kept in {kept}; this is a fresh one.")
        folder = RunFolder(path)
        folder.lock("supervisor")
    elif command is not None and recorded and not force and seen.states:
        try:
            command.check(path, recorded)
        except OtherCommandError:
            folder.unlock()
            raise
    return folder


def _names(fits: Mapping[FitKey, StateEvent]) -> str:
    return "; ".join(describe_fit(key, state) for key, state in fits.items())
