"""The existing run directories of a command or script, from which a process chooses the one to continue."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from lightning_green.ledger.events import Failed, Finished, Paused
from lightning_green.ledger.history import RunHistory, read_history
from lightning_green.ledger.run_directory import RunDirectory, RunIsAliveError, run_directories
from lightning_green.run.identity import Invocation

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Candidate:
    """An existing run directory and the history of its run.

    Args:
        directory: The run directory.
        history: History of the run.

    """

    directory: RunDirectory
    history: RunHistory

    @classmethod
    def read(cls, path: Path) -> Candidate:
        """Read a run directory.

        Raises:
            RuntimeError: If it was written by an incompatible version.
            ValueError: If its ``run.json`` is damaged.

        """
        return cls(RunDirectory(path), read_history(path))

    def lock(self) -> None:
        """Lock the run directory and read it again if it has changed.

        Raises:
            RunIsAliveError: If another process uses it.

        """
        try:
            self.directory.lock("run")
        except FileNotFoundError:  # another process has renamed it in the meantime
            raise RunIsAliveError(self.directory.describe_owner("run")) from None
        history = read_history(self.directory.path, self.history)
        if history is not self.history:
            self.directory.read()
            self.history = history

    @property
    def is_unused(self) -> bool:
        """Whether no run has started in the directory."""
        return "invocation" not in self.directory.record and not self.history.events

    def belongs_to(self, invocation: Invocation) -> bool:
        """Return whether the run belongs to an invocation. A run without a recorded invocation belongs to any."""
        recorded = self.directory.record.get("invocation")
        if recorded is None:
            return not self.is_unused
        return bool(recorded == invocation.to_json())

    @property
    def is_finished(self) -> bool:
        """Whether no work remains: each fit has finished, or its failure was handled by the script."""
        states = self.history.states.values()
        handled = bool(states) and all(isinstance(state, (Finished, Failed)) for state in states)
        return self.all_fits_finished or (handled and self.history.ended)

    @property
    def all_fits_finished(self) -> bool:
        """Whether there are fits and all have finished."""
        states = self.history.states.values()
        return bool(states) and all(isinstance(state, Finished) for state in states)

    @property
    def is_paused(self) -> bool:
        """Whether a fit is paused."""
        return any(isinstance(state, Paused) for state in self.history.states.values())

    @property
    def is_unfinished(self) -> bool:
        """Whether a fit has not finished, or the script was killed after its fits."""
        return bool(self.history.states) and not (self.all_fits_finished and self.history.ended)

    @property
    def is_alive(self) -> bool:
        """Whether another process is training in the directory."""
        return self.directory.is_alive("run")


def read_candidates(home: Path) -> list[Candidate]:
    """Return the runs in ``home`` and below it, in the order in which they were created."""
    candidates = [Candidate.read(home)]
    for path in run_directories(home)[1:]:
        try:
            candidates.append(Candidate.read(path))
        except (RuntimeError, ValueError) as error:  # noqa: PERF203 - incompatible version or damaged
            log.warning("%s", error)
    return sorted(candidates, key=lambda candidate: int(candidate.directory.record.get("index", 0)))
