"""One run in this process: its directory, its ledger and its fits.

A run belongs to one invocation of one training script. If several trainings are started with the same run directory,
the first one uses it and each further one uses its own directory in ``runs/`` below it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_green.energy.meter import Meter
from lightning_green.ledger.account import Account
from lightning_green.ledger.events import BetweenFits, Ended, Event, Finished
from lightning_green.ledger.history import RunHistory
from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.nodes import Node
from lightning_green.ledger.run_directory import (
    FORCE_VARIABLE,
    SUPERVISED_VARIABLE,
    RunDirectory,
    remove_kept_files,
)
from lightning_green.resume.fingerprint import differences
from lightning_green.utilities.clock import Clock
from lightning_green.utilities.text import printable

log = logging.getLogger(__name__)


POOL = "ThreadPoolExecutor"
"""Thread of a fit in a pool, whose threads run tasks in any order and pass exceptions to the caller."""


class OtherTrainingError(RuntimeError):
    """The state on disk belongs to another training."""


@dataclass(frozen=True)
class FitIdentity:
    """Content of a fit by which it is found again after a restart.

    Args:
        content: Fingerprint of the fit from ``fit_fingerprint``.
        weights: Digest of the initial weights, which distinguishes fits with the same content. Equal weights are
            preferred but not required, because a script without a seed starts from different weights each time.
        thread: Name of the thread for fits that are trained concurrently; ``POOL`` in a thread pool, and empty in the
            main thread.

    """

    content: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    thread: str = ""

    def differences(self, record: dict[str, Any]) -> list[str]:
        """Return the differences between this fit and a recorded one for messages."""
        return differences(record.get("identity", {}), self.content)


@dataclass(frozen=True)
class ClaimedFit:
    """A fit of a run that this process has claimed.

    Args:
        number: Its number within the run, from 0.
        continuing: Whether an earlier process has started it.
        messages: Messages for the user.

    """

    number: int
    continuing: bool
    messages: list[str] = field(default_factory=list)


class Run:
    """The part of a run that takes place in this process.

    Args:
        folder: Run directory, locked for this process; None if it cannot be written.
        clock: The clock.
        history: Events of earlier processes.
        continuing: Whether this process continues earlier ones.
        node: The node of this process.
        attempt: Number of this start if the script has started the run before this process; None otherwise.
        claimed: Fits that the script has claimed in this start.

    Attributes:
        attempt: Number of this start of the run, from 1.
        stops: Whether a fit of this process was paused, interrupted or refused, so that the script has not finished.
        was_metered: Whether a fit of this process has been metered.
        ledger: Ledger of this node, or None.

    """

    def __init__(
        self,
        folder: RunDirectory | None,
        clock: Clock,
        history: RunHistory | None = None,
        continuing: bool = False,
        node: Node | None = None,
        attempt: int | None = None,
        claimed: Iterable[int] = (),
    ) -> None:
        self.was_metered = False
        self.folder, self.clock, self.continuing = folder, clock, continuing
        self.node = Node() if node is None else node
        self.history = RunHistory() if history is None else history
        self.attempt = self.history.attempts + 1 if attempt is None else attempt
        self.ledger = None if folder is None else Ledger(folder.path, clock, self.attempt, self.node.name)
        self.stops = False
        self._claimed = set(claimed)
        self._lock = threading.Lock()
        self._idle: _IdleMeter | None = None
        self._pid = os.getpid()

    @property
    def is_of_this_process(self) -> bool:
        """Whether this process has opened the run; a forked process inherits the object but not the run."""
        return os.getpid() == self._pid

    @property
    def path(self) -> Path | None:
        """Path of the run directory, or None."""
        return None if self.folder is None else self.folder.path

    # -- fits ---------------------------------------------------------------------------------------------------------

    def claim_fit(self, identity: FitIdentity, needs_state: bool = True) -> ClaimedFit:
        """Return the fit that is trained next: a recorded one of the same content, or a new one.

        Args:
            identity: The fit.
            needs_state: Whether its state is saved and restored. A fit that is only metered is never refused.

        Raises:
            OtherTrainingError: If the next recorded fit is unfinished and has another content.

        """
        with self._lock:
            self._add_fits_of_other_processes()
            fits = {} if self.folder is None else self.folder.record.setdefault("fits", {})
            try:
                claimed = self._choose_fit(fits, identity, needs_state)
            except OtherTrainingError:
                self.stops = True  # an exception in a thread does not end the process
                raise
            self._claimed.add(claimed.number)
            if self.folder is not None:
                record = fits.setdefault(str(claimed.number), {})
                record |= {"identity": identity.content}
                if not claimed.continuing:
                    record |= {"weights": identity.weights, "thread": identity.thread}
                self.folder.record.setdefault("script_process", {})["claimed"] = sorted(self._claimed)
            return claimed

    def _add_fits_of_other_processes(self) -> None:
        """Add the fits that Lightning has trained in processes of their own since the last fit of this process."""
        others = set() if self.folder is None else self.folder.merge() - self._claimed
        if others:
            self._claimed |= others
            if self.ledger is not None:
                self.ledger.renumber()
            if self._idle is not None:  # it has measured the energy of those fits, which they have recorded
                self._idle.meter.close()
                self._idle = None

    def _choose_fit(self, fits: dict[str, Any], identity: FitIdentity, needs_state: bool) -> ClaimedFit:
        known = {*map(int, fits), *(number for number in self.history.accounts if number is not None)}
        new = ClaimedFit(max(known | self._claimed, default=-1) + 1, continuing=False)
        due = sorted(known - self._claimed)
        recorded = {number: fits.get(str(number), {}) for number in due}
        if identity.thread:  # concurrent fits start in any order
            due = [number for number in due if recorded[number].get("thread") == identity.thread]
        if not self.continuing or not due:
            return new
        same = [number for number in due if not identity.differences(recorded[number])]
        best = [number for number in same if recorded[number].get("weights") == identity.weights]
        if best or same:
            return ClaimedFit((best or same)[0], continuing=True)
        number = due[0]
        found = shorten(identity.differences(recorded[number]) or ["the weights at the start"])
        if os.environ.get(FORCE_VARIABLE) == "1":
            line = f"Fit {number} continues with changed values because of --force: {found}."
            return ClaimedFit(number, continuing=True, messages=[line])
        state = self.history.states.get(number)
        if state is None or isinstance(state, Finished) or not needs_state:
            line = f"Fit {number} of this run was another training ({found}), so a new fit starts."
            return ClaimedFit(new.number, continuing=False, messages=[line])
        raise OtherTrainingError(refusal(self.path, found))

    def fit_history(self, number: int) -> tuple[list[Event], Account]:
        """Return the events of a fit in earlier processes and its account."""
        if not self.continuing:
            return [], Account()
        events = [event for event in self.history.events if event.fit == number]
        return events, self.history.accounts.get(number, Account())

    # -- the meter between two fits -----------------------------------------------------------------------------------

    def reuse_meter(self, option: Any, gpus: list[str] | None) -> Meter | None:
        """Return the running meter of the previous fit if it has the same options; record the energy since then."""
        with self._lock:
            idle, self._idle = self._idle, None
        if idle is None:
            return None
        idle.meter.sample()
        joules = sum(energy.joules for energy in idle.meter.read().values()) - idle.joules
        if self.ledger is not None:
            self.ledger.append(BetweenFits(fit=None, between_joules=round(max(0.0, joules), 3)))
        if idle.option == option and idle.gpus == gpus:
            idle.meter.wake()
            return idle.meter
        idle.meter.close()
        return None

    def keep_meter(self, meter: Meter, option: Any, gpus: list[str] | None) -> None:
        """Keep the meter of a fit that has ended. It counts until the next fit starts, without a thread."""
        meter.rest()
        joules = sum(energy.joules for energy in meter.read().values())
        with self._lock:
            before, self._idle = self._idle, _IdleMeter(meter, option, gpus, joules)
        if before is not None:
            before.meter.close()

    # -- its end in this process --------------------------------------------------------------------------------------

    def end(self, cleanly: bool) -> None:
        """Close the run in this process.

        Args:
            cleanly: Whether the process ends without an exception.

        """
        if not self.is_of_this_process:
            return
        if self._idle is not None:
            self._idle.meter.close()
            self._idle = None
        if self.ledger is not None:
            if cleanly and self._claimed and not self.stops:
                self.ledger.append(Ended(fit=None))
            self.ledger.close()
        if self.folder is not None:
            if cleanly and not self.stops and SUPERVISED_VARIABLE not in os.environ:
                remove_kept_files(self.folder.path)  # no fit is restored any more
            self.folder.unlock()


@dataclass
class _IdleMeter:
    meter: Meter
    option: Any
    gpus: list[str] | None
    joules: float


def refusal(path: Path | None, found: str) -> str:
    """Return the error message for continuing a run with another training."""
    return (
        f"The run in {path} was started with another training: {found}. Start from scratch with `lightning-green run "
        "--fresh -- ...` (the old directory is renamed), or continue with the new values with `--force`. To run a "
        "second training with the same command line, set LIGHTNING_GREEN_RUN_NAME to a unique name."
    )


def shorten(found: list[str]) -> str:
    """Return the first five differences and the number of the others."""
    return printable("; ".join(found[:5])) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
