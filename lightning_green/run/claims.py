"""Choosing the run directory of a process among the runs of its command or script."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from lightning_green.ledger.role_lock import HEARTBEAT_STALE_SECONDS
from lightning_green.ledger.run_directory import (
    FORCE_VARIABLE,
    RESUME_VARIABLE,
    RUN_DIR_VARIABLE,
    SUPERVISED_VARIABLE,
    RunIsAliveError,
)
from lightning_green.run.candidates import Candidate, read_candidates
from lightning_green.run.claimant import Claimant
from lightning_green.run.new_runs import ClaimedRun, add_run, start_new_run
from lightning_green.run.run import OtherTrainingError, refusal
from lightning_green.supervisor.launchers import requeued
from lightning_green.utilities.files import create_directory
from lightning_green.utilities.locks import ProcessLock

log = logging.getLogger(__name__)

OLD_PROCESS_SECONDS = HEARTBEAT_STALE_SECONDS + 10.0
"""How long to wait for the end of the previous process of a run."""
UNDECIDED_SECONDS = 30.0
"""How long to wait for another process to claim a run that this process may not continue."""
RETRY_SECONDS = 0.5
CLAIM_SECONDS = 600.0
"""How long to wait for other processes that claim a run. They read long ledgers or watch another machine."""


class _UndecidedError(Exception):
    """The choice depends on another process that may claim a run, or end, in the meantime."""


class HomeGoneError(RuntimeError):
    """The run directory was removed or renamed after the supervisor had started the process."""


class RunClaim:
    """Claims a run directory for a process: that of the run to continue, or a new one.

    Args:
        home: Directory given by the supervisor, the user or the Trainer.
        claimant: The process.

    """

    def __init__(self, home: Path, claimant: Claimant) -> None:
        self._home, self._claimant = home, claimant
        began = time.monotonic()
        self._undecided_until = began + UNDECIDED_SECONDS
        self._old_process_until = began + OLD_PROCESS_SECONDS

    def acquire(self) -> ClaimedRun:
        """Return the claimed run directory, locked for this process.

        Raises:
            OSError: If the directory cannot be created or written.
            RunIsAliveError: If the run to continue is running in another process.
            OtherTrainingError: If the run to continue is another training.
            HomeGoneError: If the directory of the supervisor does not exist.

        """
        given = self._claimant.supervised and os.environ.get(RUN_DIR_VARIABLE) == str(self._home)
        if given and not self._home.exists():
            raise HomeGoneError(
                f"The run directory {self._home} was removed or renamed after `lightning-green run` had started. "
                "Move it back: nothing is trained again from scratch."
            )
        create_directory(self._home)
        while True:
            lock = ProcessLock(self._home / "claim.lock")
            if not lock.acquire(CLAIM_SECONDS):
                raise RunIsAliveError(
                    f"Another process has been choosing a run directory in {self._home} for {CLAIM_SECONDS:.0f} s. "
                    "Stop it, or choose another directory with LIGHTNING_GREEN_RUN_DIR=DIR."
                )
            try:
                with suppress(_UndecidedError):
                    claimed = self._acquire_once()
                    self._record(claimed)
                    return claimed
            finally:
                lock.release()
            time.sleep(RETRY_SECONDS)
            create_directory(self._home)  # it may have been renamed in the meantime

    def _acquire_once(self) -> ClaimedRun:
        candidates = read_candidates(self._home)
        if self._claimant.spawned and (claimed := self._of_script(candidates)) is not None:
            return claimed
        if self._continues(candidates):
            chosen = self._choose(candidates)
            if chosen is not None:
                try:
                    chosen.lock()
                except RunIsAliveError:
                    return self._handle_running(chosen, candidates)
                return ClaimedRun(chosen.directory, chosen.history, continuing=True)
        return start_new_run(self._home, self._claimant, candidates)

    def _of_script(self, candidates: Sequence[Candidate]) -> ClaimedRun | None:
        """Return the run of an earlier fit of the script that has started this process for its next fit."""
        for candidate in filter(self._claimant.shares_script, candidates):
            with suppress(RunIsAliveError):  # of a fit in another thread of the script
                if not candidate.directory.is_owned_by("run", self._claimant.script.pid):  # it waits for this process
                    candidate.lock()
                record = candidate.directory.record["script_process"]
                return ClaimedRun(
                    candidate.directory,
                    candidate.history,
                    continuing=bool(record["continuing"]),
                    attempt=int(record["attempt"]),
                    claimed=tuple(record["claimed"]),
                )
        return None

    def _record(self, claimed: ClaimedRun) -> None:
        directory = claimed.directory
        if claimed.attempt is None:
            directory.record["script_process"] = {
                "process": asdict(self._claimant.script),
                "attempt": claimed.history.attempts + 1,
                "continuing": claimed.continuing,
                "claimed": [],
            }
        directory.record["invocation"] = self._claimant.invocation.to_json()
        directory.record["claimed_in"] = self._claimant.attempt
        directory.record["environment"] = None if self._claimant.variables is None else dict(self._claimant.variables)
        directory.save()

    def _own(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        return [candidate for candidate in candidates if candidate.belongs_to(self._claimant.invocation)]

    def _continues(self, candidates: Sequence[Candidate]) -> bool:
        """Return whether this process continues a run rather than starting a new one."""
        if self._claimant.supervised:
            return True
        unfinished = [candidate for candidate in self._own(candidates) if candidate.is_unfinished]
        return any(one.is_paused for one in unfinished) or (bool(unfinished) and continues_by_request())

    def _choose(self, candidates: Sequence[Candidate]) -> Candidate | None:
        """Return the run to continue, or None to start a new one.

        Raises:
            OtherTrainingError: If a run that has to be continued is another training.

        """
        claimant, own = self._claimant, self._own(candidates)
        if claimant.supervised:
            possible = [candidate for candidate in own if not claimant.is_done(candidate)]
        else:
            unfinished = [candidate for candidate in own if candidate.is_unfinished]
            possible = sorted(unfinished, key=lambda candidate: not candidate.is_paused)
        same = [candidate for candidate in possible if claimant.trains_same(candidate)]
        matching = [candidate for candidate in same if not claimant.differing_variables(candidate)]
        if matching:
            return next(filter(claimant.starts_same, matching), matching[0])
        if os.environ.get(FORCE_VARIABLE) == "1":
            return next(iter([*same, *possible]), None)
        if not claimant.needs_state:
            return None
        if claimant.supervised and (abandoned := self._possibly_abandoned(candidates, same)):
            if time.monotonic() < self._undecided_until:
                raise _UndecidedError
            raise OtherTrainingError(refusal(abandoned[0].directory.path, claimant.describe_difference(abandoned[0])))
        others = [candidate for candidate in possible if not claimant.shares_session(candidate)]
        return others[0] if others else None  # its fits are compared later, and differences are refused by name

    def _possibly_abandoned(self, candidates: Sequence[Candidate], same: Sequence[Candidate]) -> list[Candidate]:
        """Return the runs that no process would continue if this one started a new run.

        The order of trainings that start at the same time is unknown, so another process may still claim such a run.
        """
        return [
            candidate
            for candidate in dict.fromkeys([*same, *(one for one in candidates if one.is_paused)])
            if not self._claimant.shares_attempt(candidate) and not candidate.is_alive
        ]

    def _handle_running(self, chosen: Candidate, candidates: Sequence[Candidate]) -> ClaimedRun:
        if not self._claimant.needs_state:
            log.warning("The run in %s is already running, so this process records a separate run.", self._home)
            return add_run(self._home, self._claimant, candidates)
        if self._claimant.supervised and time.monotonic() < self._old_process_until:
            raise _UndecidedError
        raise RunIsAliveError(chosen.directory.describe_owner("run"))


def continues_by_request() -> bool:
    """Return whether the supervisor, the user or SLURM requests that a run is continued."""
    return SUPERVISED_VARIABLE in os.environ or os.environ.get(RESUME_VARIABLE) == "1" or requeued()
