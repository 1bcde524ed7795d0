"""One run in this process: a directory that this process has claimed, its ledger, and the fits that belong to it.

A run belongs to one invocation of one training script. The directory that the supervisor or the user names may be asked
for by several trainings: the first one uses it, each further one a directory of its own in ``runs/`` below it.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from filelock import FileLock

from lightning_green.energy.meter import Meter
from lightning_green.runtime.accounting import Totals
from lightning_green.runtime.clock import Clock
from lightning_green.runtime.fingerprint import differences
from lightning_green.runtime.identity import Invocation, differing, set_since
from lightning_green.runtime.launchers import requeued
from lightning_green.runtime.ledger import ENDED_EVENT, Ledger, ledger_files
from lightning_green.runtime.nodes import Node
from lightning_green.runtime.past import Past, read_past
from lightning_green.runtime.run_folder import (
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

log = logging.getLogger(__name__)

LINGERING_SECONDS = HEARTBEAT_STALE_SECONDS + 10.0
"""How long to wait for the last process of a run that is to be continued."""
DOUBT_SECONDS = 30.0
"""How long a training that may be another one than a recorded one waits for that one to be claimed."""


class OtherTrainingError(RuntimeError):
    """A state on disk belongs to another training than the one that was started."""


@dataclass(frozen=True)
class FitIdentity:
    """What tells one fit from another.

    Args:
        content: What is trained, as :func:`~lightning_green.runtime.fingerprint.fit_fingerprint` returns it.
        weights: Digest of the weights at the start. They tell apart fits of the same content; a script without a seed
            starts from other weights each time, so equal weights are preferred and not required.
        thread: Name of the thread, for fits that are trained at the same time; empty in the main thread.

    """

    content: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    thread: str = ""

    def differences(self, record: dict[str, Any]) -> list[str]:
        """Return in what this fit differs from a recorded one, for people."""
        return differences(record.get("identity", {}), self.content)


@dataclass(frozen=True)
class ClaimedFit:
    """A fit of a run that this process has claimed.

    Args:
        number: Its number within the run, from 0.
        continuing: Whether an earlier process has begun it.
        messages: Lines for the user.

    """

    number: int
    continuing: bool
    messages: list[str] = field(default_factory=list)


class Run:
    """A run, as far as it takes place in this process.

    Args:
        folder: Its directory, locked for this process; None where there is nowhere to write.
        clock: The clock.
        past: What its ledger contains up to now.
        continuing: Whether this process continues what earlier ones did.
        node: The node of this process.

    Attributes:
        attempt: Which start of the run this is, from 1.
        stops: Whether a fit of this process was paused, interrupted or refused, so that its script is not done.
        ledger: The ledger of this node, or None.

    """

    def __init__(
        self,
        folder: RunFolder | None,
        clock: Clock,
        past: Past | None = None,
        continuing: bool = False,
        node: Node | None = None,
    ) -> None:
        self.folder, self.clock, self.continuing = folder, clock, continuing
        self.node = Node() if node is None else node
        self.past = Past([], {}) if past is None else past
        self.attempt = self.past.attempts + 1
        self.ledger = None if folder is None else Ledger(folder.path, clock, self.attempt, self.node.name)
        self.stops = False
        self._claimed: set[int] = set()
        self._lock = threading.Lock()
        self._idle: _IdleMeter | None = None
        self._pid = os.getpid()

    @property
    def path(self) -> Path | None:
        """Its directory, or None."""
        return None if self.folder is None else self.folder.path

    # -- fits ---------------------------------------------------------------------------------------------------------

    def claim_fit(self, identity: FitIdentity) -> ClaimedFit:
        """Return the fit of this run that is trained now: a recorded one of the same content, or a new one.

        Raises:
            OtherTrainingError: If the fit that is due was not finished and has another content.

        """
        with self._lock:
            fits = {} if self.folder is None else self.folder.record.setdefault("fits", {})
            try:
                claimed = self._choose_fit(fits, identity)
            except OtherTrainingError:
                self.stops = True  # a thread that raises does not end the process
                raise
            self._claimed.add(claimed.number)
            if self.folder is not None:
                record = fits.setdefault(str(claimed.number), {})
                record |= {"identity": identity.content}
                if not claimed.continuing:
                    record |= {"weights": identity.weights, "thread": identity.thread}
            return claimed

    def _choose_fit(self, fits: dict[str, Any], identity: FitIdentity) -> ClaimedFit:
        known = {*map(int, fits), *(number for number in self.past.fits if number is not None)}
        new = ClaimedFit(max(known | self._claimed, default=-1) + 1, continuing=False)
        due = sorted(known - self._claimed)
        if not self.continuing or not due:
            return new
        recorded = {number: fits.get(str(number), {}) for number in due}
        same = [number for number in due if not identity.differences(recorded[number])]
        best = [number for number in same if recorded[number].get("weights") == identity.weights]
        if identity.thread:  # fits at the same time begin in any order
            same, best = (
                [number for number in numbers if recorded[number].get("thread") == identity.thread]
                for numbers in (same, best)
            )
        if best or same:
            return ClaimedFit((best or same)[0], continuing=True)
        number = due[0]
        found = shorten(identity.differences(recorded[number]) or ["the weights at the start"])
        if os.environ.get(FORCE_VARIABLE) == "1":
            line = f"Fit {number} continues with other values, as --force asks for: {found}."
            return ClaimedFit(number, continuing=True, messages=[line])
        state = self.past.states.get(number)
        if state is None or state["event"] == "finished":
            line = f"Fit {number} of this run was another one ({found}), so this one starts from scratch."
            return ClaimedFit(new.number, continuing=False, messages=[line])
        raise OtherTrainingError(refusal(self.path, found))

    def history(self, number: int) -> tuple[list[dict[str, Any]], Totals]:
        """Return the recorded events of a fit and their totals."""
        if not self.continuing:
            return [], Totals()
        records = [record for record in self.past.records if record.get("fit", 0) == number]
        return records, self.past.fits.get(number, Totals())

    # -- the meter between two fits -----------------------------------------------------------------------------------

    def take_meter(self, option: Any, gpus: list[str] | None) -> Meter | None:
        """Return the running meter of the last fit, if it is the same one; its energy since that fit is recorded."""
        with self._lock:
            idle, self._idle = self._idle, None
        if idle is None:
            return None
        idle.meter.sample()
        joules = sum(energy.joules for energy in idle.meter.read().values()) - idle.joules
        if self.ledger is not None:
            self.ledger.append("between_fits", fit=None, between_joules=round(max(0.0, joules), 3))
        if idle.option == option and idle.gpus == gpus:
            return idle.meter
        idle.meter.close()
        return None

    def leave_meter(self, meter: Meter, option: Any, gpus: list[str] | None) -> None:
        """Keep the meter of a fit that has ended: it measures until the next one begins."""
        joules = sum(energy.joules for energy in meter.read().values())
        with self._lock:
            before, self._idle = self._idle, _IdleMeter(meter, option, gpus, joules)
        if before is not None:
            before.meter.close()

    # -- its end in this process --------------------------------------------------------------------------------------

    def end(self, cleanly: bool) -> None:
        """Close the run in this process.

        Args:
            cleanly: Whether the process comes to its end without an exception.

        """
        if os.getpid() != self._pid:  # a forked child has inherited the object, not the run
            return
        if self._idle is not None:
            self._idle.meter.close()
            self._idle = None
        if self.ledger is not None:
            if cleanly and self._claimed and not self.stops:
                self.ledger.append(ENDED_EVENT, fit=None)
            self.ledger.close()
        if self.folder is not None:
            self.folder.unlock()


@dataclass
class _IdleMeter:
    meter: Meter
    option: Any
    gpus: list[str] | None
    joules: float


# -- claiming ---------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Slot:
    """A directory in which a run of this invocation is, or may be."""

    folder: RunFolder
    size: int
    past: Past

    @classmethod
    def of(cls, path: Path) -> _Slot:
        return cls(RunFolder(path), _ledger_bytes(path), read_past(path))

    def lock(self) -> None:
        """Keep other processes out, and take in what was written until now."""
        self.folder.lock("run")
        if _ledger_bytes(self.folder.path) != self.size:
            self.folder.read()
            self.past = read_past(self.folder.path)

    @property
    def is_free(self) -> bool:
        return "invocation" not in self.folder.record and not self.past.records

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
        states = {state["event"] for state in self.past.states.values()}
        return self.all_finished or (bool(states) and self.past.ended and states <= {"finished", "failed"})

    @property
    def all_finished(self) -> bool:
        return {state["event"] for state in self.past.states.values()} == {"finished"}


_IN_DOUBT: Any = object()


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
        self._doubts_until = time.monotonic() + DOUBT_SECONDS
        self.messages: list[str] = []

    def take(self) -> tuple[RunFolder, Past, bool]:
        """Return the run's directory, locked, what its ledger contains, and whether to continue it.

        Raises:
            OSError: If the directory cannot be made or written.
            RunIsAliveError: If the run that is to be continued is still alive in another process.
            OtherTrainingError: If the run that is to be continued is another training.

        """
        limit = time.monotonic() + LINGERING_SECONDS
        while True:
            with self._alone():
                found = self._take(waits=time.monotonic() < limit)
                if found is not None:
                    folder = found[0]
                    folder.record["invocation"] = self.invocation.to_json()
                    folder.record["claimed_in"] = self._token
                    folder.record["environment"] = self._environment
                    folder.save()
                    return found
            time.sleep(0.5)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.home.mkdir(parents=True, exist_ok=True)
        with FileLock(str(self.home / "claim.lock"), timeout=60.0):
            yield

    def _slots(self) -> list[_Slot]:
        slots = [_Slot.of(path) for path in run_directories(self.home)]
        return sorted(slots, key=lambda slot: int(slot.folder.record.get("index", 0)))

    def _take(self, waits: bool) -> tuple[RunFolder, Past, bool] | None:
        """Return what :meth:`take` does, or None to look again: the last process of the run has not ended yet."""
        slots = self._slots()
        own = [slot for slot in slots if slot.belongs_to(self.invocation)]
        if self._continues(own):
            slot = self._choose([one for one in own if not self._is_done(one)])
            if slot is _IN_DOUBT:
                return None
            if slot is not None:
                try:
                    slot.lock()
                except RunIsAliveError:
                    return self._alive(slot, slots, waits)
                return slot.folder, slot.past, True
        return self._fresh(slots, own)

    def _continues(self, own: list[_Slot]) -> bool:
        """Return whether this process is to continue a run rather than to begin one."""
        if self._supervised:
            return True
        unfinished = [slot for slot in own if slot.past.states and not (slot.all_finished and slot.past.ended)]
        if any(state["event"] == "paused" for slot in unfinished for state in slot.past.states.values()):
            return True
        return bool(unfinished) and (os.environ.get(RESUME_VARIABLE) == "1" or requeued())

    def _is_done(self, slot: _Slot) -> bool:
        """Return whether a slot is out of question: another process of this attempt has it, or has finished it."""
        return self._is_of_this_attempt(slot) and (slot.is_finished or slot.folder.is_alive("run"))

    def _choose(self, candidates: list[_Slot]) -> _Slot | None:
        """Return the run to continue; None for a new one.

        Raises:
            OtherTrainingError: If the only run of this content was started with another environment.

        """
        same = [slot for slot in candidates if slot.matches(self.identity)]
        alike = [slot for slot in same if not self._differing(slot)]
        if alike:
            return next(filter(self._starts_alike, alike), alike[0])
        forced = os.environ.get(FORCE_VARIABLE) == "1"
        others = [slot for slot in same if forced or not self._is_of_this_attempt(slot)]
        if others and not forced:  # it may be another one: of several at the same time, which is next is not known
            if time.monotonic() < self._doubts_until:
                return cast("_Slot", _IN_DOUBT)
            names = ", ".join(self._differing(others[0]))
            raise OtherTrainingError(refusal(others[0].folder.path, f"the environment variables {names}"))
        if not others:
            others = [slot for slot in candidates if not self._is_of_this_session(slot)]
        return others[0] if others else None  # its fits are compared, and differences refused by name

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

    def _alive(self, slot: _Slot, slots: list[_Slot], waits: bool) -> tuple[RunFolder, Past, bool] | None:
        if not self.needs_state:
            log.warning("The run in %s is alive in another process, so this one is metered on its own.", self.home)
            return self._new_slot(slots)
        if waits and self._supervised:
            return None
        raise RunIsAliveError(slot.folder.describe_owner("run"))

    def _fresh(self, slots: list[_Slot], own: list[_Slot]) -> tuple[RunFolder, Past, bool]:
        home = slots[0]
        if home.is_free or (
            home in own and not self._supervised and not any(slot.folder.is_alive("run") for slot in slots)
        ):
            try:
                home.lock()
            except RunIsAliveError:
                return self._new_slot(slots)
            if not home.past.records:
                return home.folder, home.past, False
            return self._set_aside(home)
        return self._new_slot(slots)

    def _set_aside(self, home: _Slot) -> tuple[RunFolder, Past, bool]:
        last = home.past.state
        home.folder.unlock()
        kept = set_aside(self.home)
        self.home.mkdir(parents=True)
        folder = RunFolder(self.home)
        folder.lock("run")
        if last is not None and last["event"] == "finished":
            self.messages.append(f"The run in {self.home} had finished; this is a fresh one. It is kept in {kept}.")
        elif last is not None:
            ends = {"interrupted": "was interrupted", "failed": "failed"}
            was, where = ends.get(last["event"], "was killed"), f"step {last.get('global_step', 0)}"
            self.messages.append(
                f"The run in {self.home} {was} at {where}; this is a fresh one. To continue the old one instead, start "
                "it with `LIGHTNING_GREEN_RESUME=1 LIGHTNING_GREEN_RUN_DIR=<its folder>` or under `lightning-green "
                f"run`. It is kept in {kept}."
            )
        return folder, Past([], {}), False

    def _new_slot(self, slots: list[_Slot]) -> tuple[RunFolder, Past, bool]:
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
        if others and not others[0].folder.is_alive("run"):
            fits = others[0].folder.record.get("fits", {})
            found = shorten(self.identity.differences(fits.get("0", {})) or self._differing(others[0]))
            line = f"The run in {others[0].folder.path} is another training ({found}), so this one has a run of its own"
        elif owner.belongs_to(self.invocation) and owner.folder.is_alive("run"):
            line = f"{owner.folder.describe_owner('run').partition('. ')[0]}, so this training has a run of its own"
        else:
            line = f"{self.home} is the run of another training, so this one has a run of its own"
        self.messages.append(f"{line}: {path}.")
        return folder, Past([], {}), False


def refusal(path: Path | None, found: str) -> str:
    """Return the sentence that refuses to continue a run with another training."""
    return (
        f"The run in {path} was started with another script: {found}. Start from scratch with `lightning-green run "
        "--fresh -- ...` (the directory is kept under another name), or continue with the new values with `--force`. "
        "For a second training of the same command line, set LIGHTNING_GREEN_RUN_NAME to a name of its own."
    )


def shorten(found: list[str]) -> str:
    """Return the first five of these differences, and how many more there are."""
    return "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")


def _ledger_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in ledger_files(path))


def _session(token: str) -> str:
    return token.partition("/")[0]
