"""Which directory a process may use for its run, among those of a command or a script."""

from __future__ import annotations

import itertools
import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from lightning_green.ledger.events import Failed, Finished, Interrupted, Paused
from lightning_green.ledger.history import RunHistory, read_history
from lightning_green.ledger.ledger import ledger_files
from lightning_green.ledger.run_directory import (
    ATTEMPT_VARIABLE,
    FORCE_VARIABLE,
    HEARTBEAT_STALE_SECONDS,
    RESUME_VARIABLE,
    RUNS,
    SUPERVISED_VARIABLE,
    RunFolder,
    RunIsAliveError,
    run_directories,
    set_aside,
)
from lightning_green.resume.fingerprint import differences
from lightning_green.run.identity import Invocation, differing, set_since
from lightning_green.run.run import FitIdentity, OtherTrainingError, refusal, shorten
from lightning_green.supervisor.launchers import requeued

log = logging.getLogger(__name__)

LINGERING_SECONDS = HEARTBEAT_STALE_SECONDS + 10.0
"""How long to wait for the last process of a run that is to be continued."""
DOUBT_SECONDS = 30.0
"""How long a training that may be another one than a recorded one waits for that one to be claimed."""

Claimed = tuple[RunFolder, RunHistory, bool]
"""A run's directory, locked; what its ledger contains; and whether to continue it."""


class _LookAgainError(Exception):
    """It is not decided yet; another process may claim a run, or end, in the meantime."""


@dataclass(eq=False)
class _Slot:
    """A directory in which a run of this invocation is, or may be."""

    folder: RunFolder
    size: int
    history: RunHistory

    @classmethod
    def of(cls, path: Path) -> _Slot:
        return cls(RunFolder(path), _ledger_bytes(path), read_history(path))

    def lock(self) -> None:
        """Keep other processes out, and take in what was written until now."""
        self.folder.lock("run")
        if _ledger_bytes(self.folder.path) != self.size:
            self.folder.read()
            self.history = read_history(self.folder.path)

    @property
    def is_free(self) -> bool:
        return "invocation" not in self.folder.record and not self.history.events

    def belongs_to(self, invocation: Invocation) -> bool:
        """Return whether the run is one of this invocation; what an older version wrote counts as that."""
        recorded = self.folder.record.get("invocation")
        if recorded is None:
            return not self.is_free
        return bool(recorded == invocation.to_json())

    def matches(self, identity: FitIdentity) -> bool:
        fits = list(self.folder.record.get("fits", {}).values())
        return not fits or any(not identity.differences(fit) for fit in fits)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do: each fit has finished, or failed in a script that went on."""
        states = self.history.states.values()
        handled = bool(states) and all(isinstance(state, (Finished, Failed)) for state in states)
        return self.all_finished or (handled and self.history.ended)

    @property
    def all_finished(self) -> bool:
        states = self.history.states.values()
        return bool(states) and all(isinstance(state, Finished) for state in states)

    @property
    def is_paused(self) -> bool:
        return any(isinstance(state, Paused) for state in self.history.states.values())

    @property
    def is_unfinished(self) -> bool:
        return bool(self.history.states) and not (self.all_finished and self.history.ended)

    @property
    def is_alive(self) -> bool:
        return self.folder.is_alive("run")


class Claim:
    """Finds the directory of a run among those that an invocation may have.

    Args:
        home: The directory that the supervisor, the user or the Trainer names.
        invocation: The invocation.
        identity: The first fit of this process.
        needs_state: Whether states are saved and restored; metering alone takes another directory rather than stop.

    """

    def __init__(self, home: Path, invocation: Invocation, identity: FitIdentity, needs_state: bool) -> None:
        self.home, self.invocation, self.identity, self.needs_state = home, invocation, identity, needs_state
        supervisor = os.environ.get(SUPERVISED_VARIABLE, "")
        self._supervised = bool(supervisor)
        self._token = os.environ.get(ATTEMPT_VARIABLE)
        self._environment = set_since(int(supervisor)) if supervisor.isdigit() else None
        began = time.monotonic()
        self._doubts_until, self._lingers_until = began + DOUBT_SECONDS, began + LINGERING_SECONDS
        self.messages: list[str] = []

    def take(self) -> Claimed:
        """Return the run's directory, locked, what its ledger contains, and whether to continue it.

        Raises:
            OSError: If the directory cannot be made or written.
            RunIsAliveError: If the run that is to be continued is still alive in another process.
            OtherTrainingError: If the run that is to be continued is another training.

        """
        self.home.mkdir(parents=True, exist_ok=True)
        while True:
            with suppress(_LookAgainError), FileLock(str(self.home / "claim.lock")):
                claimed = self._take()
                self._sign(claimed[0])
                return claimed
            time.sleep(0.5)

    def _sign(self, folder: RunFolder) -> None:
        folder.record["invocation"] = self.invocation.to_json()
        folder.record["claimed_in"] = self._token
        folder.record["environment"] = self._environment
        try:
            folder.save()
        except OSError as error:
            if not folder.exists():
                raise
            log.warning("%s could not be written (%s).", folder.path / "run.json", error)  # an older one is there

    def _slots(self) -> list[_Slot]:
        slots = [_Slot.of(self.home)]
        for path in run_directories(self.home)[1:]:
            try:
                slots.append(_Slot.of(path))
            except (RuntimeError, ValueError) as error:  # noqa: PERF203 - of another version, or damaged
                log.warning("%s", error)
        return sorted(slots, key=lambda slot: int(slot.folder.record.get("index", 0)))

    def _take(self) -> Claimed:
        slots = self._slots()
        own = [slot for slot in slots if slot.belongs_to(self.invocation)]
        if self._continues(own):
            slot = self._choose(slots, own)
            if slot is not None:
                try:
                    slot.lock()
                except RunIsAliveError:
                    return self._alive(slot, slots)
                return slot.folder, slot.history, True
        return self._fresh(slots, own)

    def _continues(self, own: list[_Slot]) -> bool:
        """Return whether this process is to continue a run rather than to begin one."""
        if self._supervised:
            return True
        unfinished = [slot for slot in own if slot.is_unfinished]
        return any(slot.is_paused for slot in unfinished) or (bool(unfinished) and continues_by_request())

    def _choose(self, slots: list[_Slot], own: list[_Slot]) -> _Slot | None:
        """Return the run to continue; None for a new one.

        Raises:
            OtherTrainingError: If a run that has to be continued is another training than this one.

        """
        if self._supervised:
            candidates = [slot for slot in own if not self._is_done(slot)]
        else:
            candidates = sorted((slot for slot in own if slot.is_unfinished), key=lambda slot: not slot.is_paused)
        same = [slot for slot in candidates if slot.matches(self.identity)]
        alike = [slot for slot in same if not self._differing(slot)]
        if alike:
            return next(filter(self._starts_alike, alike), alike[0])
        if os.environ.get(FORCE_VARIABLE) == "1":
            return next(iter([*same, *candidates]), None)
        if not self.needs_state:
            return None
        if self._supervised and (doubtful := self._doubtful(slots, same)):
            if time.monotonic() < self._doubts_until:
                raise _LookAgainError
            raise OtherTrainingError(refusal(doubtful[0].folder.path, self._difference(doubtful[0])))
        others = [slot for slot in candidates if not self._is_of_this_session(slot)]
        return others[0] if others else None  # its fits are compared, and differences refused by name

    def _doubtful(self, slots: list[_Slot], same: list[_Slot]) -> list[_Slot]:
        """Return runs that this process may be about to abandon: of the same content, or paused.

        Of trainings that start at the same time nobody knows which one comes first, so the others may claim them yet.
        """
        return [
            slot
            for slot in dict.fromkeys([*same, *(slot for slot in slots if slot.is_paused)])
            if not self._is_of_this_attempt(slot) and not slot.is_alive
        ]

    def _difference(self, slot: _Slot) -> str:
        """Return in what a run differs from this one, for people."""
        recorded = {"invocation": slot.folder.record.get("invocation", {})}
        found = differences(recorded, {"invocation": self.invocation.to_json()})
        found = found or self.identity.differences(slot.folder.record.get("fits", {}).get("0", {}))
        return shorten(found) if found else f"the environment variables {', '.join(self._differing(slot))}"

    def _is_done(self, slot: _Slot) -> bool:
        """Return whether a slot is out of question: another process of this attempt has it, or has finished it."""
        return self._is_of_this_attempt(slot) and (slot.is_finished or slot.is_alive)

    def _starts_alike(self, slot: _Slot) -> bool:
        fits = slot.folder.record.get("fits", {}).values()
        return any(fit.get("weights") == self.identity.weights for fit in fits)

    def _differing(self, slot: _Slot) -> list[str]:
        return differing(slot.folder.record.get("environment"), self._environment)

    def _is_of_this_attempt(self, slot: _Slot) -> bool:
        return self._token is not None and slot.folder.record.get("claimed_in") == self._token

    def _is_of_this_session(self, slot: _Slot) -> bool:
        """Return whether this supervisor has started the run: it did not change since, so this is another training."""
        claimed = slot.folder.record.get("claimed_in")
        return self._token is not None and claimed is not None and _session(claimed) == _session(self._token)

    def _alive(self, slot: _Slot, slots: list[_Slot]) -> Claimed:
        if not self.needs_state:
            log.warning("The run in %s is alive in another process, so this one is metered on its own.", self.home)
            return self._new_slot(slots)
        if self._supervised and time.monotonic() < self._lingers_until:
            raise _LookAgainError
        raise RunIsAliveError(slot.folder.describe_owner("run"))

    def _fresh(self, slots: list[_Slot], own: list[_Slot]) -> Claimed:
        home = next(slot for slot in slots if slot.folder.path == self.home)
        may_be_put_aside = home in own and not self._supervised and not any(slot.is_alive for slot in slots)
        if home.is_free or may_be_put_aside:
            try:
                home.lock()
            except RunIsAliveError:
                return self._new_slot(slots)
            if not home.history.events:
                return home.folder, home.history, False
            return self._set_aside(home)
        return self._new_slot(slots)

    def _set_aside(self, home: _Slot) -> Claimed:
        last = home.history.state
        home.folder.unlock()
        kept = set_aside(self.home)
        self.home.mkdir(parents=True)
        folder = RunFolder(self.home)
        folder.lock("run")
        if isinstance(last, Finished):
            self.messages.append(f"The run in {self.home} had finished; this is a fresh one. It is kept in {kept}.")
        elif last is not None:
            was = "was killed"
            if isinstance(last, (Interrupted, Failed)):
                was = "was interrupted" if isinstance(last, Interrupted) else "failed"
            where = f"step {last.global_step or 0}"
            self.messages.append(
                f"The run in {self.home} {was} at {where}; this is a fresh one. To continue the old one instead, start "
                "it with `LIGHTNING_GREEN_RESUME=1 LIGHTNING_GREEN_RUN_DIR=<its folder>` or under `lightning-green "
                f"run`. It is kept in {kept}."
            )
        return folder, RunHistory(), False

    def _new_slot(self, slots: list[_Slot]) -> Claimed:
        name, owner = self.invocation.name, slots[0]
        for number in itertools.count(1):
            path = self.home / RUNS / (name if number == 1 else f"{name}-{number}")
            if path.exists():
                continue
            folder = RunFolder(path)
            with suppress(RunIsAliveError):
                folder.lock("run")
                break
        folder.record["index"] = len(slots)
        others = [slot for slot in slots if slot.belongs_to(self.invocation) and not self._is_done(slot)]
        if others and not others[0].is_alive:
            found = self._difference(others[0])
            line = f"The run in {others[0].folder.path} is another training ({found}), so this one has a run of its own"
        elif owner.belongs_to(self.invocation) and owner.is_alive:
            line = f"{owner.folder.describe_owner('run').partition('. ')[0]}, so this training has a run of its own"
        else:
            line = f"{self.home} is the run of another training, so this one has a run of its own"
        self.messages.append(f"{line}: {path}.")
        return folder, RunHistory(), False


def continues_by_request() -> bool:
    """Return whether the supervisor, the user or SLURM asks to continue a run."""
    return SUPERVISED_VARIABLE in os.environ or os.environ.get(RESUME_VARIABLE) == "1" or requeued()


def _ledger_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in ledger_files(path))


def _session(token: str) -> str:
    return token.partition("/")[0]
