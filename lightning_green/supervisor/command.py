"""What a supervisor knows of its command: how it was started, and how the trainings in it stand."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_green.ledger.events import Failed, Finished, Interrupted, Paused, Started, StateEvent
from lightning_green.ledger.history import RunHistory, read_history
from lightning_green.ledger.run_directory import RunFolder, final_path, run_directories
from lightning_green.utilities.files import write_json

FILE = "command.json"

FitKey = tuple[Path, int]
"""The directory of a run, and the number of a fit within it."""


class OtherCommandError(RuntimeError):
    """The directory belongs to another command."""


@dataclass(frozen=True)
class Command:
    """A command line, as it was given to ``lightning-green run``.

    Args:
        words: The command line.
        directory: Working directory.
        clock: Specification of the simulated clock, or None for the system's.

    """

    words: tuple[str, ...]
    directory: str
    clock: str | None = None

    def line(self, run_dir: Path, *options: str) -> str:
        """Return the line that starts this command again in its directory, ready for a shell."""
        words = ["lightning-green", "run", "--run-dir", str(run_dir), *options]
        if self.clock is not None:
            words += ["--clock", self.clock]
        return shlex.join([*words, "--", *self.words])

    def check(self, run_dir: Path, recorded: Mapping[str, Any]) -> None:
        """Compare with the command that a directory was started with.

        Raises:
            OtherCommandError: If they differ.

        """
        then, now = recorded.get("clock"), self.clock
        if (then is None) != (now is None):
            old = "the system's clock" if then is None else f"the simulated clock {then}"
            new = "the system's clock" if now is None else "a simulated clock"
            raise OtherCommandError(
                f"The run in {run_dir} was started on {old}, not on {new}. Give the same `--clock`, name another "
                "directory with --run-dir, or start from scratch with --fresh."
            )
        words = recorded.get("words")
        if words is not None and (list(words), recorded.get("directory")) != (list(self.words), self.directory):
            raise OtherCommandError(
                f"The run in {run_dir} was started with `{shlex.join(words)}` in {recorded.get('directory')}, not with "
                f"`{shlex.join(self.words)}` in {self.directory}. Name another directory with --run-dir, start from "
                "scratch with --fresh, or continue with the new command with --force."
            )


def read_command(home: Path) -> dict[str, Any]:
    """Return what is recorded of the command of a directory; an empty dict where there is nothing readable."""
    try:
        record = json.loads((home / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_command(home: Path, command: Command, exit_code: int | None) -> None:
    """Record the command of a directory, and its exit code once it has ended for good; None while it has not."""
    write_json(
        home / FILE,
        {
            "words": list(command.words),
            "directory": command.directory,
            "clock": command.clock,
            "pid": os.getpid(),
            "exit_code": exit_code,
        },
        private=True,
    )


@dataclass(frozen=True)
class Trainings:
    """The trainings of a command at one moment.

    Args:
        histories: History of each run by its directory.

    """

    histories: Mapping[Path, RunHistory]

    @classmethod
    def of(cls, home: Path) -> Trainings:
        """Return the trainings of the command in ``home``."""
        return cls({path: read_history(path) for path in run_directories(home)})

    @property
    def states(self) -> dict[FitKey, StateEvent]:
        """The last event that says how each fit stands."""
        return {(path, fit): state for path, history in self.histories.items() for fit, state in history.states.items()}

    @property
    def paused(self) -> dict[FitKey, Paused]:
        """The fits that are paused."""
        return {key: state for key, state in self.states.items() if isinstance(state, Paused) and state.until}

    @property
    def steps(self) -> int:
        """The most optimizer steps that were done, summed over all fits."""
        return sum(history.steps for history in self.histories.values())

    @property
    def are_finished(self) -> bool:
        """Whether there are trainings and each has finished."""
        return bool(self.states) and all(isinstance(state, Finished) for state in self.states.values())

    @property
    def are_restored(self) -> bool:
        """Whether each has finished and would be restored by another start, rather than trained again."""
        return self.are_finished and all(final_path(path, fit).exists() for path, fit in self.states)

    def since(self, before: Trainings) -> dict[FitKey, StateEvent]:
        """Return the fits whose state is another one than before."""
        earlier = before.states
        return {key: state for key, state in self.states.items() if earlier.get(key) != state}

    def broken(self, keys: Iterable[FitKey]) -> dict[FitKey, StateEvent]:
        """Return which of these fits ended without having finished or paused.

        A fit that failed in a process that came to its end all the same was handled by its script, but not one that
        failed in a thread: its exception ends the thread alone.
        """
        states = self.states
        return {key: states[key] for key in keys if self._is_broken(key, states[key])}

    def _is_broken(self, key: FitKey, state: StateEvent) -> bool:
        if isinstance(state, Failed):
            return bool(state.thread) or not self.histories[key[0]].ended
        return isinstance(state, (Started, Interrupted))

    def left(self, changed: Collection[FitKey], attempt: str) -> dict[FitKey, StateEvent]:
        """Return the fits that an attempt should have continued and did not.

        They are paused, or belong to a run that a process of the attempt has claimed without coming to its end.

        Args:
            changed: The fits that the attempt has trained or restored.
            attempt: The attempt, as ``run.json`` names it in ``claimed_in``.

        """
        unfinished = self.broken(self.states)
        return {
            key: state
            for key, state in self.states.items()
            if key not in changed and (key in self.paused or (key in unfinished and self._was_claimed(key[0], attempt)))
        }

    def _was_claimed(self, path: Path, attempt: str) -> bool:
        return not self.histories[path].ended and RunFolder(path).record.get("claimed_in") == attempt


def are_alive(home: Path) -> bool:
    """Return whether a process is training in a run of this directory now."""
    return any(RunFolder(path).is_alive("run") for path in run_directories(home))


def describe_fit(key: FitKey, state: StateEvent) -> str:
    """Return a few words that name a fit: its directory, its number where there are several, its step."""
    path, fit = key
    number = f", fit {fit}" if fit else ""
    return f"{path}{number}, at step {state.global_step or 0}"
