"""Starts a command, reads the state of its trainings from their ledgers, waits, and starts the command again."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable
from pathlib import Path

from lightning_green.ledger.events import Failed, Started
from lightning_green.ledger.run_directory import RunDirectory, read_record, remove_kept_files
from lightning_green.supervisor.attempt import Attempt, Outcome, newest
from lightning_green.supervisor.child import (
    LOCK_FILE,
    POLL_SECONDS,
    ChildProcess,
    CommandStartError,
    child_environment,
    is_child_running,
)
from lightning_green.supervisor.command import Command, Trainings, are_alive, describe_fits, write_command
from lightning_green.supervisor.launchers.launcher import AWAITING_EXIT_CODE, Launcher
from lightning_green.supervisor.launchers.local import LocalLauncher
from lightning_green.supervisor.processes import CommandProcesses
from lightning_green.supervisor.progress import JobProgress
from lightning_green.supervisor.releasing import Releasing
from lightning_green.supervisor.restarts import MAX_RESTARTS, RestartPolicy
from lightning_green.supervisor.signals import Signals
from lightning_green.supervisor.stopping import Stopping, end_background
from lightning_green.supervisor.survivors import PATIENCE_SECONDS, STOP_SECONDS, end_ranks, wait_for_ranks
from lightning_green.supervisor.waiting import Waiting
from lightning_green.throttle.restore import restore_left_over
from lightning_green.utilities.clock import Clock, clock_from_record
from lightning_green.utilities.durations import format_duration

FINISHED, FAILED = 0, 1


class DirectoryGoneError(RuntimeError):
    """The run directory was removed or renamed while the command ran."""


class Supervisor:
    """Runs one command until its exit code is 0 and none of its trainings is paused.

    The command may train once, several times in sequence or in parallel, or not at all. Each training has its own run
    directory: the first one uses the given directory, the others use directories below it.

    Args:
        command: Command to start.
        directory: Run directory of the command.
        max_restarts: Consecutive failures without a new optimizer step before giving up.
        force: Continue with the new values if the model, the optimizer or the data have changed.
        print_line: Receives messages for the user, one line each.
        stop_seconds: How long the command may take to save its state and to exit after a signal. Then it is killed.
        launcher: What the supervisor waits with: by default in this process, which keeps the machine.

    Attributes:
        could_not_start: Whether the command ended because of an error that another start cannot avoid.
        releasing: Whether and when the launcher has to start the command again.

    """

    def __init__(
        self,
        command: Command,
        directory: RunDirectory,
        max_restarts: int = MAX_RESTARTS,
        force: bool = False,
        print_line: Callable[[str], None] = print,
        stop_seconds: float = STOP_SECONDS,
        launcher: Launcher | None = None,
    ) -> None:
        self.command, self.directory = command, directory
        self.launcher = LocalLauncher() if launcher is None else launcher
        self.max_restarts, self.force, self.print_line = max_restarts, force, print_line
        self.stop_seconds, self.could_not_start = stop_seconds, False
        self._session, self._attempt, self._has_trained = uuid.uuid4().hex[:8], 0, False
        self._trainings: Trainings | None = None
        self._signals = Signals(continues=self.launcher.can_release)
        progress = JobProgress(directory.path, max_restarts, print_line)
        self.releasing = Releasing(
            self.launcher, self._signals, stop_seconds, print_line, progress, self._read_trainings
        )

    def run(self) -> int:
        """Start the command, wait and start it again until it has finished.

        Returns:
            The exit code. 0: finished. 1: gave up. 69: a training is paused without a planned time, because a budget is
            used. 75: the launcher has to start the command again at ``releasing.begin_again``, once the run directory
            is unlocked. 126 or 127: the command cannot be executed or does not exist. 128 + N:
            stopped by signal N. Any other code is that of the command itself (128 + N for signal N), which failed after
            its trainings.

        """
        with self._signals:
            self._record_command(None)
            code = self._supervise()
            if self._signals.stop is not None and self.releasing.begin_again is not None:  # just before a release
                self.releasing.begin_again, code = None, self._stop()
            if self._signals.stop is None and self.releasing.begin_again is None:
                self._record_command(code)
            return code

    def _record_command(self, exit_code: int | None) -> None:
        try:
            write_command(self.directory.path, self.command, exit_code)
        except OSError as error:
            if exit_code is None:  # the last line is the reason of the end
                self.print_line(
                    f"The command could not be recorded in {self.directory.path} ({error.strerror}). It runs anyway."
                )

    def _supervise(self) -> int:
        trainings = self._read_trainings()
        if self._wait_for_running_training() and self._signals.stop is None:
            trainings = self._read_trainings()
            ended = all(history.ended for history in trainings.histories.values() if history.states)
            if trainings.are_finished and ended and not trainings.are_restored:  # its exit code is unknown
                self.print_line("That training has finished. To train again, add --fresh.")
                return FINISHED
        if trainings.are_restored:
            self.print_line("All trainings have finished. Only the code after them runs. To train again, add --fresh.")
        restarts = RestartPolicy(self.max_restarts, trainings.steps)
        while True:
            before = self._wait_while_paused()
            if self._signals.stop is not None:
                return self._stop()
            released = self.releasing.before_start(before)
            if released is not None:
                return released
            try:
                attempt = self._start(before)
            except CommandStartError as error:
                self.could_not_start = True
                self.print_line(str(error))
                return error.code
            except DirectoryGoneError as error:
                self.print_line(str(error))
                return FAILED
            code = self._final_code(attempt)
            if code is not None:
                return code
            if attempt.outcome is Outcome.PAUSED:
                restarts.record_pause(attempt)
                continue
            released = self.releasing.after(attempt)
            if released is not None:
                return released
            why_not = restarts.record_failure(attempt)
            if why_not is not None:
                self.could_not_start = attempt.permanent_error is not None
                self.print_line(why_not)
                return self._give_up(attempt)
            delay = format_duration(restarts.delay)
            self.print_line(f"Attempt {self._attempt} failed: {attempt.reason}. Starting again in {delay}.")
            self._clock(self.directory.path).sleep(restarts.delay, self._signals)

    def _read_trainings(self) -> Trainings:
        self._trainings = Trainings.of(self.directory.path, self._trainings)
        return self._trainings

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _wait_for_running_training(self) -> bool:
        """Wait for a training whose supervisor was killed, and pass signals on to it; return whether there was one."""
        home, found = self.directory.path, False
        processes = CommandProcesses(home)
        stopping = Stopping(processes, self.stop_seconds, self.print_line)
        while are_alive(home) or is_child_running(home):
            if not found:
                self.print_line(f"The training in {home} is still running without its supervisor. Waiting for its end.")
                found = True
            stopping.pass_on(self._signals)
            if self._signals.stop is not None and not processes.are_running():  # it runs on another machine
                break
            self.directory.beat()
            self._signals.wait(POLL_SECONDS)
        return found

    def _wait_while_paused(self) -> Trainings:
        """Wait until no training is paused or one is due; return the state of the trainings then.

        The ledgers are read again each time because a training may have been continued without this supervisor.
        """
        trainings = self._read_trainings()
        if self._signals.stop is None and trainings.paused:
            waiting = Waiting(trainings.paused, self.print_line)
            clock = self._clock(waiting.path)
            while not self.releasing.during(waiting, clock):
                if waiting.wait(clock, self._signals, self.directory.beat, self.releasing.retry_at):
                    return self._read_trainings()
        return trainings

    def _clock(self, path: Path) -> Clock:
        """Return the clock of a run, bound to its directory."""
        clock = clock_from_record(self.command.clock or read_record(path).get("clock"))
        clock.bind(path)
        return clock

    # -- one attempt --------------------------------------------------------------------------------------------------

    def _start(self, before: Trainings) -> Attempt:
        """Run the command once and restore devices that a killed training left throttled."""
        self._attempt += 1
        name, home = f"{self._session}/{self._attempt}", self.directory.path
        if not home.exists():
            raise DirectoryGoneError(
                f"The run directory {home} was removed or renamed. Move it back, and rerun the command to continue."
            )
        end_ranks(home, self.directory.beat, self.print_line, self.stop_seconds)
        since = self.releasing.waited_since()
        restarts = self._has_trained or self.launcher.has_restarted
        environment = child_environment(home, name, self.force, self.command.clock, self.launcher, since, restarts)
        watch = self.releasing.watch
        child = ChildProcess(self.command, home, environment, self.print_line, self.stop_seconds, watch)
        result = child.run(self.directory.beat, self._signals)
        if not (home / LOCK_FILE).exists():  # a new directory with the same name lacks it
            raise DirectoryGoneError(
                f"The run directory {home} was removed or renamed during the training, and the command ended with exit "
                f"code {result.exit_code}. Move the directory back, and rerun the same command to continue."
            )
        self._wait_for_ranks(result.code)
        after = self._read_trainings()
        for path in after.histories:
            for line in restore_left_over(path):
                self.print_line(line)
        attempt = Attempt(result.code, result.traceback, before, after, name)
        self._has_trained = self._has_trained or bool(attempt.changed)
        return attempt

    def _wait_for_ranks(self, code: int) -> None:
        """Wait for processes of the training that are still running after their command; stop them if it has failed."""
        home = self.directory.path
        left = wait_for_ranks(home, PATIENCE_SECONDS, self.directory.beat)
        if left and code == 0 and self._signals.stop is None:  # it may train in the background
            self.print_line("The command has ended, and its training is still running. Waiting for its end.")
            wait_for_ranks(home, float("inf"), self.directory.beat, self._signals.is_set)
        end_ranks(home, self.directory.beat, self.print_line, self.stop_seconds)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _final_code(self, attempt: Attempt) -> int | None:
        """Return the exit code after the last attempt, or None if the command is started again or has failed."""
        if attempt.outcome is Outcome.FINISHED:
            if self._signals.stop is not None:
                self._end_left()
            self._finish(attempt)
            return FINISHED
        if self._signals.stop is not None:
            return self._stop()
        if attempt.outcome is Outcome.AWAITING:
            for (path, _), state in attempt.awaiting.items():
                remedy = state.remedy or "Its next start is not planned."
                self.print_line(
                    f"Paused at step {state.global_step or 0}: {state.reason} {remedy} The run is in {path}."
                )
            return AWAITING_EXIT_CODE
        if attempt.outcome is Outcome.NOT_CONTINUED:
            self.print_line(
                "The command ended with exit code 0 and did not continue these trainings: "
                f"{describe_fits(attempt.not_continued)}. Run the command that started them, or start from scratch "
                "with --fresh."
            )
            return FAILED
        if attempt.outcome is Outcome.FAILED_AFTERWARDS:
            self.print_line(f"The training finished; the script then ended with {attempt.ending}.")
            return attempt.code
        return None

    def _finish(self, attempt: Attempt) -> None:
        """Report trainings that were not continued, and remove files that are no longer needed."""
        after = attempt.after
        if not after.states:
            self.print_line(
                "The command ended without a recorded training; `fast_dev_run`, `validate`, `test` and `predict` are "
                "not recorded. If it trained a model, add EmissionsTracker() or CarbonScheduler() to the callbacks of "
                "its Trainer."
            )
        unfinished = {key: state for key, state in after.broken(after.states).items() if key not in attempt.changed}
        if unfinished:
            self.print_line(
                f"The command has finished. It did not continue these earlier trainings: {describe_fits(unfinished)}."
            )
        for path in after.histories:
            remove_kept_files(path)

    def _give_up(self, attempt: Attempt) -> int:
        """Return the exit code of a failure: that of the command itself if all trainings have finished."""
        if not attempt.after.are_restored or attempt.code == 0:
            return FAILED
        self.print_line(
            f"The training finished; the script then ended with {attempt.ending}. Rerun the same command to run only "
            "the code after the training."
        )
        return attempt.exit_code

    def _end_left(self) -> None:
        """End what the command has left behind: after a stop, nothing of it runs on."""
        self._wait_for_ranks(FAILED)
        end_background(self.directory.path, self.print_line)

    def _stop(self) -> int:
        """Print the commands that continue or start from scratch; return the exit code of the signal."""
        number = self._signals.stop
        assert number is not None
        self._end_left()
        last = newest(self._read_trainings().states)
        step = 0 if last is None else last.global_step or 0
        options = [] if self.max_restarts == MAX_RESTARTS else ["--max-restarts", str(self.max_restarts)]
        if self.stop_seconds != STOP_SECONDS:
            options += ["--stop-timeout", f"{self.stop_seconds:.0f}s"]
        if self.launcher.can_release:
            options += ["--launcher", self.launcher.name.lower()]
        path = self.directory.path
        again = self.command.line(path, *options, *(["--force"] if self.force else []))
        saved = not isinstance(last, (Started, Failed))
        stopped = f"Stopped at step {step}" if saved else f"The training ended at step {step} without saving its state,"
        self.print_line(
            f"{stopped} by {signal.Signals(number).name}.\n"
            f"  To continue:            {again}\n"
            f"  To start from scratch:  {self.command.line(path, *options, '--fresh')}"
        )
        return 128 + number
