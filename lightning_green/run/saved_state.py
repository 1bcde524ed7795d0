"""The training state of one fit on disk: when it is saved, and what the fit is restored from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lightning_green._lightning.loops import batch_position
from lightning_green.ledger.events import CheckpointFailed, CheckpointSaved, Warned
from lightning_green.ledger.run_directory import final_path
from lightning_green.resume import checkpoints
from lightning_green.resume.checkpoint_directories import continue_directories
from lightning_green.resume.kept_files import keep_files, restore_files
from lightning_green.resume.plain_data import NotPlainError
from lightning_green.resume.training_state import STATE_KEY, ExactState, Point
from lightning_green.run.csv_rows import count_rows, drop_rows
from lightning_green.run.pause_rule import PauseAt, PauseRule
from lightning_green.run.run import OtherTrainingError
from lightning_green.run.session import Session
from lightning_green.strategies.control_group import Command, ControlGroup
from lightning_green.utilities.clock import Clock, SystemClock

log = logging.getLogger(__name__)

_TOGETHER = 2.0  # seconds between the files that one validation may save


class CheckpointTimer:
    """When the next periodic checkpoint is due.

    Args:
        clock: Clock of the run.

    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._every, self._next = clock, None, float("inf")  # type: tuple[Clock, timedelta | None, float]

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
        return self._next != float("inf") and self._clock.monotonic() + within >= self._next


def is_own_last_checkpoint(path: Path, since: float) -> bool:
    """Return whether a file is the newest checkpoint in its directory, written since a time in seconds since 1970.

    Scripts choose it to continue after an interruption, in contrast to an older one to go back to.
    """
    try:
        written = path.stat().st_mtime
        newest = max(one.stat().st_mtime for one in path.parent.glob(f"*{path.suffix}"))
    except (OSError, ValueError):
        return False
    return since <= written and newest - written < _TOGETHER


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
        can_save: Whether states are written.
        why_not_saved: Reason why no state can be written, or None.
        epochs_only: Whether states are written between epochs only.
        already_finished: Whether the fit had finished in an earlier process.
        restored: What the fit was restored from, for people; None if it was not.

    """

    exact: ExactState

    def __init__(
        self, session: Session, trainer: pl.Trainer, ranks: ControlGroup, timer: CheckpointTimer, messages: list[str]
    ) -> None:
        self._session, self._trainer, self._ranks = session, trainer, ranks
        self._timer, self._messages = timer, messages
        self.path: Path | None = None
        self.can_save = self.already_finished = self.epochs_only = False
        self.why_not_saved: str | None = None
        self._epoch_began: float | None = None
        self.restored: str | None = None

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
        self.can_save, resuming, self.already_finished, self.path, session.recorder.fit, session.continuing = shared
        self.exact = exact()
        self.exact.attach(self._load, resuming, self._restore_files, check_data if self.already_finished else None)
        return bool(resuming)

    # -- restore ------------------------------------------------------------------------------------------------------

    def _load(self, given: Any) -> tuple[str, dict[str, Any]] | None:
        """Return the newest checkpoint that every rank can read: its path and content, or None.

        Rank 0 chooses one, each rank reads it, and if one of them cannot, rank 0 chooses an older one.

        Args:
            given: The ``ckpt_path`` of the user, or None.

        Raises:
            OtherTrainingError: If the user asks for a state to which the run would have to go back.

        """
        problems, damaged = list[str](), list[Path]()
        while True:
            found = self._choose(problems, damaged) if self._ranks.is_rank_zero else None
            path = self._ranks.broadcast(None if found is None else found[0])
            if path is None:
                return None
            checkpoint = checkpoints.load_checkpoint(Path(path)) if found is None else found[1]
            wrong = self._ranks.broadcast(self._ranks.gather(self.exact.load_shard(Path(path), checkpoint)))
            if not any(wrong):
                if self._ranks.is_rank_zero:
                    self._check_given(given)
                return path, checkpoint
            problems += filter(None, wrong)
            damaged.append(Path(path))

    def _check_given(self, given: Any) -> None:
        """Compare the ``ckpt_path`` of the user with that of the first start; the state of the run is newer."""
        folder = self._session.folder
        assert folder is not None
        recorded = self._session.record_on_disk.get("ckpt_path")
        if given is None or recorded is None or str(given) == recorded["path"] or self.already_finished:
            return
        if is_own_last_checkpoint(Path(given), recorded["at"]):
            self._messages.append(f"`ckpt_path` {given} is not used: the state of the run, {self.restored}, is newer.")
            return
        raise OtherTrainingError(
            f"The run in {folder.path} would continue from {self.restored}, and `ckpt_path` is {given} now instead of "
            f"{recorded['path']}. To continue the run, use the previous value. To start from that file, add --fresh: "
            "`lightning-green run --fresh -- ...` (the old directory is renamed)."
        )

    def _restore_files(self, checkpoint: dict[str, Any]) -> None:
        """Continue the directories of checkpoints on all ranks, and their files and the logged rows on rank 0."""
        self._messages += continue_directories(self._trainer, checkpoint, self._ranks)
        folder, fit, saved = self._session.folder, self._session.fit, checkpoint.get(STATE_KEY, {})
        if folder is None:
            return
        if self.already_finished:
            restore_files(self._trainer, folder.path, fit, saved.get("files", []))
        if not self.already_finished or all(int(other) <= fit for other in folder.record.get("fits", {})):
            drop_rows(self._trainer, saved.get("rows", {}))  # a later fit may have logged to the same file

    def _choose(self, problems: list[str], damaged: list[Path]) -> tuple[str, dict[str, Any]] | None:
        folder, fit = self._session.folder, self._session.fit
        assert folder is not None
        if self.already_finished:
            path = final_path(folder.path, fit)
            if path in damaged:
                raise RuntimeError(problems[-1])
            self.restored = "its final state"
            return str(path), checkpoints.load_checkpoint(path)
        found = checkpoints.load_latest(folder.path, fit, problems, damaged)
        if found is None:
            return None
        stored, checkpoint, found_problems = found
        for problem in found_problems:
            self._messages.append(
                f"{problem.rstrip('.')}. The checkpoint before it is used: step {stored.global_step}."
            )
        self.restored = f"step {stored.global_step}"
        self._session.recorder.global_step = stored.global_step
        return str(stored.path), checkpoint

    # -- save ---------------------------------------------------------------------------------------------------------

    def check_can_save(self, point: Point) -> None:
        """Save and restore a state in memory before anything depends on it; if that fails, nothing is saved."""
        why = self._ranks.broadcast(self.exact.why_not_saved(point)) if self.can_save else None
        if why is not None:
            line = self._never_save(why)
            if self._session.announced:
                log.warning("%s", line)
                self._session.record(Warned(reason=line))

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint of this fit from which it can continue."""
        folder = self._session.folder
        return folder is not None and bool(checkpoints.list_checkpoints(folder.path, self._session.fit))

    def describe_stop(self) -> str:
        """Return what becomes of the training state at a signal, in one sentence."""
        if not self.can_save:
            return "The training state is not saved."
        if self.epochs_only:
            return "The run continues from the last saved epoch."
        return "The training state will be saved."

    def record_given(self) -> None:
        """Record the ``ckpt_path`` of the first start, and its time for a comparison with the times of files."""
        given = self._trainer.ckpt_path
        path = None if given is None else str(given)
        self._session.record_on_disk["ckpt_path"] = {"path": path, "at": SystemClock().now().timestamp()}

    def limit(self, rule: PauseRule) -> None:
        """Save only where a resume is exact, by a rule and by the training loaders; before the start-up block."""
        line = self._apply(self._ranks.broadcast(rule.join(self._rule_of_loaders())))
        if line is not None:
            self._session.record(Warned(reason=line))

    def _limit_by_loaders(self) -> None:
        """Apply what is known of training loaders that were requested again in a later epoch; on rank 0."""
        self.limit_later(self._rule_of_loaders())

    def limit_later(self, rule: PauseRule) -> None:
        """Apply a rule that became known after the start; on rank 0."""
        line = self._apply(rule)
        if line is not None:
            log.warning("%s", line)
            self._session.record(Warned(reason=line))

    def _rule_of_loaders(self) -> PauseRule:
        if self.exact.why_never_exact is not None:
            return PauseRule(PauseAt.NEVER, self.exact.why_never_exact)
        if self.exact.why_epochs_only is not None:
            return PauseRule(PauseAt.EPOCH, self.exact.why_epochs_only)
        return PauseRule()

    def _apply(self, rule: PauseRule) -> str | None:
        """Apply a rule; return a message if it changes where states are saved."""
        if not self.can_save or rule.at is PauseAt.BATCH or (rule.at is PauseAt.EPOCH and self.epochs_only):
            return None
        if rule.at is PauseAt.NEVER:
            return self._never_save(rule.reason)
        self.epochs_only = True
        line = f"The run is saved, and exits, at the end of an epoch only: {rule.reason}."
        self._messages.append(line)
        return line

    def _never_save(self, why: str) -> str:
        self.can_save, self.why_not_saved = False, why
        line = f"The run is metered, and neither paused nor saved: {why}."
        self._messages.append(line)
        return line

    def save(self, point: Point, reason: str) -> Path | None:
        """Save the exact state at a boundary; all ranks take part.

        Args:
            point: Boundary, ``"batch"`` or ``"epoch"``.
            reason: ``"periodic"``, ``"exit"`` or the name of a signal.

        Returns:
            The file; None if it could not be written, which is logged and recorded.

        """
        session = self._session
        self._limit_by_loaders()
        if session.folder is None or not self.can_save or (self.epochs_only and point == "batch"):
            return None
        # A checkpoint taken in order to exit is restart overhead; a run without pauses takes periodic ones as well.
        session.recorder.enter(phase="checkpoint" if reason == "periodic" else "restart")
        number = checkpoints.next_number(session.folder.path, session.fit)
        self._ranks.send(Command.SAVE, number, float(reason == "periodic"))
        try:
            checkpoint = self.exact.dump(point, self.path_of(number))
            checkpoint[STATE_KEY]["rows"] = count_rows(self._trainer)
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
        if self.epochs_only and point == "epoch":
            now = self._session.clock.monotonic()
            within, self._epoch_began = 0.0 if self._epoch_began is None else now - self._epoch_began, now
        if self._timer.is_due(within):
            self.save(point, "periodic")

    def plan_next(self) -> None:
        """Count the time to the next periodic checkpoint from now on."""
        if self.can_save:
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
        if not self.can_save or self.already_finished or self.path is None:
            return
        folder, fit = self._session.folder, self._session.fit
        try:
            state = self.exact.dump("epoch", final_path(self.path, fit))
            if folder is None:  # rank 0 writes
                return
            state[STATE_KEY]["files"] = keep_files(self._trainer, folder.path, fit)
            state[STATE_KEY]["rows"] = count_rows(self._trainer)
            checkpoints.store_final(folder.path, fit, state)
        except (OSError, NotPlainError) as error:
            log.warning("The final state could not be saved: %s.", error)
            self._session.record(CheckpointFailed(reason=str(error)))
