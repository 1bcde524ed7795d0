"""The training state of one fit on disk."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl

from lightning_green._lightning.loops import batch_position
from lightning_green.ledger.events import CheckpointFailed, CheckpointSaved, Warned
from lightning_green.ledger.run_directory import final_path
from lightning_green.resume import checkpoints
from lightning_green.resume.kept_files import keep_files
from lightning_green.resume.plain_data import NotPlainError
from lightning_green.resume.training_state import STATE_KEY, ExactState, Point
from lightning_green.run.csv_rows import count_rows
from lightning_green.run.pause_rule import PauseAt, PauseRule
from lightning_green.run.save_limits import SaveLimits, rule_of_loaders
from lightning_green.run.session import Session
from lightning_green.run.state_source import StateSource
from lightning_green.strategies.control_group import Command, ControlGroup
from lightning_green.utilities.clock import Clock

log = logging.getLogger(__name__)


_EPOCHS_DIFFER = "the processes are in different epochs, and the run is saved at the end of an epoch only"


class CheckpointTimer:
    """When the next periodic checkpoint is due.

    Args:
        clock: Clock of the run.

    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._every, self._next = clock, None, math.inf  # type: tuple[Clock, timedelta | None, float]

    def request(self, every: timedelta | None) -> None:
        """Save at least this often; the shortest of several requests counts."""
        known = [one for one in (self._every, every) if one is not None]
        self._every = min(known) if known else None

    def restart(self) -> None:
        """Count from now on."""
        if self._every is not None:
            self._next = self._clock.monotonic() + self._every.total_seconds()

    def is_due(self, within: float = 0.0) -> bool:
        """Return whether a checkpoint is due, or will be within that many seconds."""
        return self._clock.monotonic() + within >= self._next


class SavedState:
    """Saves and restores the training state of one fit; all processes of the training take part.

    Args:
        session: Session of the fit.
        trainer: The trainer.
        ranks: Processes of the training.
        timer: When periodic checkpoints are due.
        messages: Receives lines for the user.

    Attributes:
        exact: The exact training state, from ``attach`` on.
        path: Run directory, known to all ranks; None if there is none.
        limits: Where states are written.
        source: What the fit is restored from.

    """

    exact: ExactState

    def __init__(
        self, session: Session, trainer: pl.Trainer, ranks: ControlGroup, timer: CheckpointTimer, messages: list[str]
    ) -> None:
        self._session, self._trainer, self._ranks = session, trainer, ranks
        self._timer = timer
        self.path: Path | None = None
        self.limits = SaveLimits(messages)
        self.source = StateSource(session, trainer, ranks, messages)
        self._epoch_began: float | None = None

    def attach(self, exact: Callable[[], ExactState], saves: bool, check_data: Callable[[], None]) -> bool:
        """Find what to restore, and prepare the training loops; return whether there is something to restore.

        Args:
            exact: Returns the exact training state.
            saves: Whether files may be written.
            check_data: Compares the data with the recorded data before a finished fit is restored.

        """
        session, folder = self._session, self._session.folder
        resuming = finished = False
        if folder is not None and saves and session.continuing:
            finished = final_path(folder.path, session.fit).exists()
            resuming = finished or bool(checkpoints.list_checkpoints(folder.path, session.fit))
        path = None if folder is None else folder.path
        own = saves and folder is not None, resuming, finished, path, session.fit, session.continuing
        shared = self._ranks.broadcast(own)  # rank 0 has the directory and decides for all
        self.limits.can_save, resuming, finished, self.path, session.recorder.fit, session.continuing = shared
        self.source.is_final = finished
        self.exact = exact()
        load = functools.partial(self.source.load, self.exact)
        self.exact.attach(load, resuming, self.source.restore_files, check_data if finished else None)
        return bool(resuming)

    # -- save ---------------------------------------------------------------------------------------------------------

    def check_can_save(self, point: Point) -> None:
        """Save and restore a state in memory before anything depends on it; if that fails, nothing is saved."""
        why = self._ranks.broadcast(self.exact.why_not_saved(point)) if self.limits.can_save else None
        if why is not None:
            line = self.limits.forbid(why)
            if self._session.announced:
                log.warning("%s", line)
                self._session.record(Warned(reason=line))

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint of this fit from which it can continue."""
        folder = self._session.folder
        return folder is not None and bool(checkpoints.list_checkpoints(folder.path, self._session.fit))

    def limit(self, rule: PauseRule) -> None:
        """Save only where a resume is exact, by a rule and by the training loaders; before the start-up block."""
        line = self.limits.apply(self._ranks.broadcast(rule.join(rule_of_loaders(self.exact))))
        if line is not None:
            self._session.record(Warned(reason=line))

    def limit_later(self, rule: PauseRule) -> None:
        """Apply a rule that became known after the start; on rank 0."""
        line = self.limits.apply(rule)
        if line is not None:
            log.warning("%s", line)
            self._session.record(Warned(reason=line))

    def exits_at_epochs_only(self) -> bool:
        """Return whether an exit is possible at the end of an epoch only, by what is known now; on rank 0."""
        self.limit_later(rule_of_loaders(self.exact))  # of loaders that were requested again in a later epoch
        return self.limits.epochs_only

    def save(self, point: Point, reason: str) -> Path | None:
        """Save the exact state at a boundary; all ranks take part.

        Args:
            point: Boundary, ``"batch"`` or ``"epoch"``.
            reason: ``"periodic"``, ``"exit"`` or the name of a signal.

        Returns:
            The file; None if it could not be written, which is logged and recorded.

        """
        session = self._session
        self.limit_later(rule_of_loaders(self.exact))
        if session.folder is None or not self.limits.allow(point):
            return None
        # A checkpoint taken in order to exit is restart overhead; a run without pauses takes periodic ones as well.
        session.recorder.enter(phase="checkpoint" if reason == "periodic" else "restart")
        number = checkpoints.next_number(session.folder.path, session.fit)
        self._ranks.send(Command.SAVE, number, float(reason == "periodic"))
        try:
            checkpoint = self.exact.dump(point, self.path_of(number))
            if self.limits.epochs_only and any(own["point"] == "batch" for own in checkpoint[STATE_KEY]["ranks"]):
                session.recorder.enter(phase="training")
                self.limit_later(PauseRule(PauseAt.NEVER, f"{_EPOCHS_DIFFER} ({self.limits.why_epochs_only})"))
                return None
            checkpoint[STATE_KEY]["rows"] = count_rows(self._trainer)
            checkpoint[STATE_KEY][checkpoints.OWNER_KEY] = list(self.source.owner())
            stored = checkpoints.store_checkpoint(
                session.folder.path, session.fit, self._trainer.global_step, checkpoint
            )
        except (OSError, NotPlainError) as error:
            log.warning(
                "The training state could not be saved: %s. Training continues without this checkpoint. Free disk "
                "space or fix permissions.",
                error,
            )
            session.recorder.enter(phase="training")
            session.record(CheckpointFailed(reason=str(error)))
            return None
        finally:
            self.plan_next()
        session.clock.advance("checkpoint")
        session.recorder.status.phase = "training"
        batch = list(batch_position(self._trainer))
        position = batch if point == "batch" else [self._trainer.current_epoch, 0]
        session.record(CheckpointSaved(reason=reason, path=stored.path.name, position=position))
        return stored.path

    def save_if_due(self, point: Point) -> None:
        """Save periodically; between epochs only, already if the end of the next epoch would be too late."""
        within = 0.0
        if point == "epoch" and self.limits.epochs_only:
            now = self._session.clock.monotonic()
            within, self._epoch_began = 0.0 if self._epoch_began is None else now - self._epoch_began, now
        if self._timer.is_due(within):
            self.save(point, "periodic")

    def plan_next(self) -> None:
        """Count the time to the next periodic checkpoint from now on."""
        if self.limits.can_save:
            self._timer.restart()

    def dump(self, point: Point, number: int) -> None:
        """Take part in the checkpoint with that number, on ranks other than 0."""
        self.exact.dump(point, self.path_of(number))

    def path_of(self, number: int) -> Path:
        """Return the file of the checkpoint with that number."""
        assert self.path is not None
        return checkpoints.checkpoint_path(self.path, self._session.fit, self._trainer.global_step, number)

    def save_final(self) -> None:
        """Save the final state, after every ``on_train_end``."""
        if self.source.is_final or self.path is None:
            return
        if not self._ranks.broadcast(self.limits.can_save):  # only rank 0 knows a limit that was found after the start
            return
        folder, fit = self._session.folder, self._session.fit
        try:
            state = self.exact.dump("epoch", final_path(self.path, fit))
            if folder is None:  # rank 0 writes
                return
            state[STATE_KEY]["files"] = keep_files(self._trainer, folder.path, fit)
            state[STATE_KEY]["rows"] = count_rows(self._trainer)
            state[STATE_KEY][checkpoints.OWNER_KEY] = list(self.source.owner())
            checkpoints.store_final(folder.path, fit, state)
        except (OSError, NotPlainError) as error:
            log.warning("The final state could not be saved: %s.", error)
            self._session.record(CheckpointFailed(reason=str(error)))
