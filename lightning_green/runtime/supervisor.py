"""Starts a training, believes its ledger about how it ended, waits, and starts it again."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning_green.durations import format_duration
from lightning_green.grid.build import grid_from_spec
from lightning_green.grid.signal import GridSignal
from lightning_green.planning import ISSUES_FILE, Issues, job_from_record, live_plan
from lightning_green.runtime.clock import CLOCK_VARIABLE, Clock, SystemClock, clock_from_spec
from lightning_green.runtime.ledger import Ledger
from lightning_green.runtime.past import read_past
from lightning_green.runtime.run_folder import (
    FORCE_VARIABLE,
    RESUME_VARIABLE,
    RUN_DIR_VARIABLE,
    SUPERVISED_VARIABLE,
    RunFolder,
    set_aside,
)
from lightning_green.throttle.journal import restore_left_over

FINISHED, FAILED = 0, 1
LONGEST_BACK_OFF_SECONDS = 300.0
POLL_SECONDS = 0.1
CHILD_LOCK = "child.lock"
HOPELESS = re.compile(r"^(ImportError|ModuleNotFoundError|SyntaxError|IndentationError)\b", re.MULTILINE)


class _CommandError(RuntimeError):
    """The command is not one."""


class Supervisor:
    """Runs one command until its training is finished.

    Args:
        command: The command line to start, such as ``["python", "train.py"]``.
        folder: The run's folder.
        max_restarts: Crashes in a row, without a new optimizer step between them, after which it gives up.
        force: Continue although the model, the optimizer or the data have changed.
        clock: Clock that is handed to the child; None for the one that the run recorded, or the system's.
        say: Receives what the user should know, a line at a time.

    """

    def __init__(
        self,
        command: Sequence[str],
        folder: RunFolder,
        max_restarts: int = 3,
        force: bool = False,
        clock: str | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.command, self.folder = list(command), folder
        self.max_restarts, self.force, self.clock_spec, self.say = max_restarts, force, clock, say
        self._child: subprocess.Popen[bytes] | None = None
        self._signal: int | None = None
        self._wake = threading.Event()

    def run(self) -> int:
        """Start, wait and start again until the run is finished; return the exit code.

        0: finished. The child's own code: the training finished and the script failed after it. 1: given up. 130 or
        143: stopped by SIGINT or SIGTERM, and the same line continues.
        """
        old = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return self._run()
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _run(self) -> int:
        if self._wait_for_survivor() and self._signal is None:
            state = read_past(self.folder.path).state
            if state is not None and state["event"] == "finished":
                self.say("That training has finished. To start anew, add --fresh.")
                return FINISHED
        failures, best, last_trace = 0, read_past(self.folder.path).steps, ""
        while True:
            seen = read_past(self.folder.path)  # anew each time: somebody may have gone on by hand
            if self._signal is None and seen.state is not None and seen.state["event"] == "paused":
                self._wait(seen.state)
                seen = read_past(self.folder.path)
            if self._signal is not None:
                return self._stopped()
            attempts = seen.attempts
            try:
                code, trace = self._start()
            except _CommandError as error:
                self.say(str(error))
                return FAILED
            for line in restore_left_over(self.folder.path):  # a child that was killed could not do it itself
                self.say(line)
            seen = read_past(self.folder.path)
            state, began = seen.state, seen.attempts > attempts
            event = state["event"] if began and state is not None else "died before the training began"
            if event == "finished":
                if code:
                    self.say(f"The training finished; the script then ended with exit code {code}.")
                return code
            if self._signal is not None:
                return self._stopped()
            if event == "paused":
                failures, best = 0, max(best, seen.steps)
                continue
            progress, best = seen.steps > best, max(best, seen.steps)
            failures = 1 if progress else failures + 1
            why = state["reason"] if began and state is not None and event in ("failed", "interrupted") else event
            if event == "started":
                why = f"the process was killed or died ({_describe(code)})"
            if code == 0 and not began:
                self.say(
                    "The command ended without training under a Lightning Green callback. Add EmissionsTracker() or "
                    "CarbonScheduler() to the Trainer's callbacks, or start it without `lightning-green run`."
                )
                return FINISHED
            if found := HOPELESS.search(trace):
                self.say(f"The command cannot start: {_line_of(trace, found)}. Mend that and start it again.")
                return FAILED
            if not progress and trace and trace == last_trace:
                self.say(f"The same error came twice without a new step: {_last_line(trace)}. It is not tried again.")
                return FAILED
            last_trace = "" if progress else trace
            if failures > self.max_restarts:
                self.say(f"Given up after {failures} failures in a row without a new step: {why}.")
                return FAILED
            delay = min(LONGEST_BACK_OFF_SECONDS, 2.0 ** (failures - 1))
            self.say(f"Attempt {seen.attempts} ended: {why}. Starting again in {format_duration(delay)}.")
            self._clock().sleep(delay, self._wake)

    # -- one attempt --------------------------------------------------------------------------------------------------

    def _start(self) -> tuple[int, str]:
        """Run the command once; return its exit code and the end of its last traceback."""
        environment = {
            **os.environ,
            RUN_DIR_VARIABLE: str(self.folder.path),
            SUPERVISED_VARIABLE: str(os.getpid()),
            RESUME_VARIABLE: "1",
        }
        if self.force:
            environment[FORCE_VARIABLE] = "1"
        if self.clock_spec:
            environment[CLOCK_VARIABLE] = self.clock_spec
        # for a script that makes its W&B run before `fit`, where a logger can still be given its id
        known = self.folder.record.get("loggers", {})
        runs = [identity for key, identity in known.items() if key.endswith(".WandbLogger")]
        if runs:
            environment = {"WANDB_RUN_ID": runs[0], "WANDB_RESUME": "allow", **environment}
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
                        self.command, env=environment, stderr=errors, pass_fds=(lock.fileno(),)
                    )
                except OSError as error:
                    raise _CommandError(
                        f"`{self.command[0]}` cannot be started: {error.strerror}. Check the command after `--`."
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
        self.folder.record = RunFolder(self.folder.path).record
        with open(path, "rb") as errors_again:
            errors_again.seek(max(start, errors_again.seek(0, os.SEEK_END) - 65536))
            text = errors_again.read().decode(errors="replace")
        return code, text[text.rfind("Traceback (most recent call last)") :] if "Traceback (most" in text else ""

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
        while (self.folder.is_alive("run") or self._child_lives()) and self._signal is None:
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

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _clock(self) -> Clock:
        spec = self.clock_spec or self.folder.record.get("clock")
        clock = SystemClock() if spec is None else clock_from_spec(spec)
        clock.bind(self.folder.path)
        return clock

    def _wait(self, paused: dict[str, Any]) -> None:
        """Sleep until the planned time; plan again whenever a slot ends."""
        clock = self._clock()
        until = datetime.fromisoformat(paused["until"])
        grid = self._grid(paused, clock)
        if grid is not None:
            grid.bind_clock(clock.now)
            grid.start()
        issues = Issues(self.folder.path / ISSUES_FILE)  # with what the training was told before it left
        self.say(f"Out until {until:%Y-%m-%d %H:%M} UTC: {paused['reason']}")
        try:
            while self._signal is None and clock.now() < until:
                seconds = (until - clock.now()).total_seconds()
                next_slot = 3600.0 - clock.time() % 3600.0
                clock.sleep(min(seconds, next_slot, 3600.0 if clock.is_simulated else 60.0), self._wake)
                self.folder.beat()
                if grid is not None and clock.now() < until and clock.time() % 3600.0 < 60.0:
                    until = self._plan_again(paused, grid, issues, clock, until)
        finally:
            if grid is not None:
                grid.close()

    def _grid(self, paused: dict[str, Any], clock: Clock) -> GridSignal | None:
        spec = paused.get("grid")
        job = paused.get("job", {})
        if spec is None or not (job.get("deadline") or job.get("delay_price")):
            return None
        try:
            return grid_from_spec(spec)
        except (
            OSError,
            ValueError,
            TypeError,
            ImportError,
        ) as error:  # a trace that was moved, a class of the script's
            line = f"Planning again is not possible while the run is out, so the time that was planned stands: {error}"
            ledger = Ledger(self.folder.path, clock, int(paused["attempt"]))
            ledger.append("warning", reason=line, state="out")
            ledger.close()
            self.say(line)
            return None

    def _plan_again(
        self, paused: dict[str, Any], grid: GridSignal, issues: Issues, clock: Clock, until: datetime
    ) -> datetime:
        now = clock.now()
        answer = live_plan(grid, job_from_record(paused["job"], "out"), issues, now)
        waits = answer.slots[0].action in ("exit", "hold")
        again = answer.until if waits else now
        if abs((again - until).total_seconds()) >= 60.0:
            ledger = Ledger(self.folder.path, clock, int(paused["attempt"]))
            ledger.append(
                "decision",
                reason=answer.reason,
                action="exit" if waits else "run",
                until=again.isoformat(),
                state="out",
            )
            ledger.close()
            self.say(f"Planned again: out until {again:%Y-%m-%d %H:%M} UTC. {answer.reason}")
        return again

    # -- how it ends --------------------------------------------------------------------------------------------------

    def _stopped(self) -> int:
        assert self._signal is not None
        state = read_past(self.folder.path).state
        step = 0 if state is None else state.get("global_step", 0)
        line = f"lightning-green run --run-dir {self.folder.path} -- {' '.join(self.command)}"
        self.say(
            f"Stopped at step {step} by {signal.Signals(self._signal).name}.\n  To continue:    {line}\n"
            f"  To start anew:  {line.replace(' -- ', ' --fresh -- ', 1)}"
        )
        return 128 + self._signal


def open_folder(path: Path, fresh: bool, say: Callable[[str], None] = print) -> RunFolder:
    """Return the run's folder, locked for this supervisor; one that is finished, or not wanted, is put aside first.

    A run that finished after its supervisor was killed stays. Its fits are restored, not trained again, and the script
    does what comes after them: nobody has seen it do that.

    Raises:
        OSError: If the folder cannot be made or written.
        RunIsAliveError: If another supervisor, or a training that is not to be waited for, is in it.

    """
    folder = RunFolder(path)
    left = folder.was_left("supervisor")
    folder.lock("supervisor")
    state = read_past(path).state
    finished = state is not None and state["event"] == "finished" and not left and not folder.is_alive("run")
    if state is not None and (fresh or finished):
        if fresh:
            folder.refuse_if_alive("run")
        folder.unlock()
        kept = set_aside(path)
        say(f"The {'finished' if finished else 'earlier'} run is kept in {kept}; this is a fresh one.")
        folder = RunFolder(path)
        folder.lock("supervisor")
    return folder


def _describe(code: int) -> str:
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _last_line(trace: str) -> str:
    lines = [line for line in trace.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no message"


def _line_of(trace: str, found: re.Match[str]) -> str:
    return trace[found.start() :].splitlines()[0].strip().rstrip(".")
