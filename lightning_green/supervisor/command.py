"""A supervised command: its record on disk and the state of its trainings."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_green.ledger.events import Failed, Finished, Interrupted, Paused, Started, StateEvent
from lightning_green.ledger.history import RunHistory, read_history
from lightning_green.ledger.run_directory import final_path, is_alive, read_record, run_directories
from lightning_green.ledger.run_record import Check, is_clock, is_text, list_of, optional
from lightning_green.utilities.files import write_json
from lightning_green.utilities.reading import UnreadableFileError, read_json
from lightning_green.utilities.redaction import redact_words, shell_line

log = logging.getLogger(__name__)

FILE = "command.json"
COMMAND_VARIABLE = "LIGHTNING_GREEN_COMMAND"
"""Set by the supervisor: the command. The record in the run directory is untrusted input, and has no secrets."""
_RECORD: Mapping[str, Check] = {
    "words": lambda value: list_of(is_text)(value) and bool(value),
    "directory": is_text,
    "clock": optional(is_clock),
    "exit_code": optional(lambda value: isinstance(value, int)),
}

FitKey = tuple[Path, int]
"""Run directory and number of a fit."""


class OtherCommandError(RuntimeError):
    """The run directory belongs to another command."""


@dataclass(frozen=True)
class Command:
    """Command line given to ``lightning-green run``.

    Args:
        words: The command line.
        directory: Working directory.
        clock: Specification of the simulated clock; None for the system clock.

    """

    words: tuple[str, ...]
    directory: str
    clock: str | None = None

    def line(self, run_dir: Path, *options: str) -> str:
        """Return the shell command that starts this command again in its run directory, without its secrets."""
        words = ["lightning-green", "run", "--run-dir", str(run_dir), *options]
        if self.clock is not None:
            words += ["--clock", self.clock]
        return shell_line([*words, "--", *self.words])

    def to_environment(self) -> dict[str, str]:
        """Return the variable with which a training starts its command again for a check; the clock is not included."""
        return {COMMAND_VARIABLE: json.dumps([list(self.words), self.directory])}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Command | None:
        """Return the command of the supervisor that started this process; None without one."""
        text = environment.get(COMMAND_VARIABLE)
        if text is None:
            return None
        words, directory = json.loads(text)
        return cls(tuple(words), directory)

    def check(self, run_dir: Path, recorded: Mapping[str, Any]) -> None:
        """Compare this command with the recorded command of a run directory.

        Raises:
            OtherCommandError: If they differ.

        """
        then, now = recorded.get("clock"), self.clock
        if (then is None) != (now is None):
            old = "the system clock" if then is None else f"the simulated clock {then}"
            new = "the system clock" if now is None else "a simulated clock"
            raise OtherCommandError(
                f"The run in {run_dir} was started on {old}, not on {new}. Use the same `--clock`, choose another "
                "directory with --run-dir, or start from scratch with --fresh."
            )
        words, directory = recorded.get("words"), recorded.get("directory")
        if words is None:
            return
        words = redact_words([str(word) for word in words])
        if (words, directory) != (redact_words(self.words), self.directory):
            raise OtherCommandError(
                f"The run in {run_dir} was started with `{shell_line(words)}` in {directory}, not with "
                f"`{shell_line(self.words)}` in {self.directory}. Choose another directory with --run-dir, start from "
                "scratch with --fresh, or continue with the new command with --force."
            )


def read_command(home: Path) -> dict[str, Any]:
    """Return the recorded command of a run directory; an empty dict if there is no readable record."""
    try:
        record = read_json(home / FILE)
    except (OSError, UnreadableFileError):
        return {}
    is_complete = isinstance(record, dict) and all(check(record.get(name)) for name, check in _RECORD.items())
    return dict(record) if is_complete else {}


def write_command(home: Path, command: Command, exit_code: int | None) -> None:
    """Record the command of a run directory.

    Args:
        home: Run directory of the command.
        command: The command.
        exit_code: Final exit code; None while the command has not finished.

    """
    write_json(
        home / FILE,
        {
            "words": redact_words(command.words),
            "directory": command.directory,
            "clock": command.clock,
            "pid": os.getpid(),
            "exit_code": exit_code,
        },
        private=True,
    )


@dataclass(frozen=True)
class Trainings:
    """State of all trainings of a command.

    Args:
        histories: History of each run by its run directory.

    """

    histories: Mapping[Path, RunHistory]

    @classmethod
    def of(cls, home: Path, known: Trainings | None = None) -> Trainings:
        """Return the trainings of the command in ``home``; histories that did not change are those of ``known``."""
        earlier = {} if known is None else known.histories
        return cls({path: _read_history(path, earlier.get(path)) for path in run_directories(home)})

    @property
    def states(self) -> dict[FitKey, StateEvent]:
        """Last state event of each fit."""
        return {(path, fit): state for path, history in self.histories.items() for fit, state in history.states.items()}

    @property
    def paused(self) -> dict[FitKey, Paused]:
        """Fits that are paused until a planned time."""
        return {key: state for key, state in self.states.items() if isinstance(state, Paused) and state.until}

    @property
    def awaiting(self) -> dict[FitKey, Paused]:
        """Paused fits that no planned time ends, such as those whose budget is used."""
        return {key: state for key, state in self.states.items() if isinstance(state, Paused) and not state.until}

    @property
    def steps(self) -> int:
        """Highest number of optimizer steps, summed over all fits."""
        return sum(history.steps for history in self.histories.values())

    @property
    def are_finished(self) -> bool:
        """Whether there are trainings and all have finished."""
        return bool(self.states) and all(isinstance(state, Finished) for state in self.states.values())

    @property
    def are_restored(self) -> bool:
        """Whether all have finished and another start would restore them instead of repeating them."""
        return self.are_finished and all(final_path(path, fit).exists() for path, fit in self.states)

    def since(self, before: Trainings) -> dict[FitKey, StateEvent]:
        """Return the fits whose state differs from an earlier one."""
        earlier = before.states
        return {key: state for key, state in self.states.items() if earlier.get(key) != state}

    def broken(self, keys: Iterable[FitKey]) -> dict[FitKey, StateEvent]:
        """Return those of the given fits that have neither finished nor paused.

        If a fit failed and its process then ended normally, the script has handled the exception. A failure in a thread
        is not handled: its exception ends only the thread.
        """
        states = self.states
        return {key: states[key] for key in keys if self._is_broken(key, states[key])}

    def _is_broken(self, key: FitKey, state: StateEvent) -> bool:
        if isinstance(state, Failed):
            return bool(state.thread) or not self.histories[key[0]].ended
        return isinstance(state, (Started, Interrupted))

    def not_continued(self, changed: Collection[FitKey], attempt: str) -> dict[FitKey, StateEvent]:
        """Return the fits that an attempt should have continued and did not.

        These fits are paused, or they are unfinished and belong to a run that a process of the attempt has claimed.

        Args:
            changed: Fits that the attempt has trained or restored.
            attempt: Name of the attempt, the value of ``claimed_in`` in ``run.json``.

        """
        unfinished, paused = self.broken(self.states), {**self.paused, **self.awaiting}
        return {
            key: state
            for key, state in self.states.items()
            if key not in changed and (key in paused or (key in unfinished and self._was_claimed(key[0], attempt)))
        }

    def _was_claimed(self, path: Path, attempt: str) -> bool:
        return not self.histories[path].ended and read_record(path).get("claimed_in") == attempt


def _read_history(path: Path, known: RunHistory | None) -> RunHistory:
    """Return the history of a run, or the known one if its directory cannot be read at the moment."""
    try:
        return read_history(path, known)
    except OSError as error:
        if known is None:
            raise
        log.warning("The ledger in %s cannot be read (%s).", path, error.strerror)
        return known


def are_alive(home: Path) -> bool:
    """Return whether a process is training in a run of this command."""
    return any(is_alive(path) for path in run_directories(home))


def describe_fits(fits: Mapping[FitKey, StateEvent]) -> str:
    """Return the directory, the number (if not 0) and the step of each fit for messages."""
    return "; ".join(_describe_fit(*key, state) for key, state in fits.items())


def _describe_fit(path: Path, number: int, state: StateEvent) -> str:
    fit = f", fit {number}" if number else ""
    return f"{path}{fit}, at step {state.global_step or 0}"
