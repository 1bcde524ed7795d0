"""What happens between two batches, on all ranks at the same batch."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import lightning.pytorch as pl

from lightning_green._lightning.elapsed_time import exclude_pause
from lightning_green._lightning.loops import may_be_last_batch
from lightning_green.resume.training_state import Point
from lightning_green.run.saved_state import SavedState
from lightning_green.run.session import Session
from lightning_green.run.signals import StopSignals
from lightning_green.run.worker_rank import WorkerRank
from lightning_green.strategies.control_group import SYNC_SECONDS, Command, ControlGroup

Action = Callable[[Point], None]

_SYNC = 1
"""What rank 0 sends before a batch to sync at the boundary after it. Larger numbers are signals."""


class Boundaries:
    """Calls actions between batches; with several ranks, rank 0 decides and the others follow at the same batch.

    Args:
        session: Session of the fit.
        trainer: The trainer.
        ranks: Processes of the training.
        state: The saved state.
        signals: Signals that ask to stop.
        actions: Called on rank 0 at each boundary that is due.
        on_signal: Ends the fit on rank 0, with the name of the signal.
        on_command: Ends the fit on another rank, with the command of rank 0 and its number.

    Attributes:
        follower: Follows rank 0 on the other ranks; None on rank 0.

    """

    def __init__(
        self,
        session: Session,
        trainer: pl.Trainer,
        ranks: ControlGroup,
        state: SavedState,
        signals: StopSignals,
        actions: list[Action],
        on_signal: Callable[[Point, str], None],
        on_command: Callable[[Command, int], None],
    ) -> None:
        self._session, self._trainer, self._ranks, self._state = session, trainer, ranks, state
        self._signals, self._actions, self._on_signal, self._on_command = signals, actions, on_signal, on_command
        self.follower = None if ranks.is_rank_zero else WorkerRank(session, trainer, ranks)
        self._checked, self._is_simulated = False, session.clock.is_simulated
        self._sync_due, self._between_batches, self._synced_at = True, False, 0.0

    def reached(self, point: Point) -> None:
        """Act at a boundary; the training loop calls it between batches and between epochs."""
        if not self._checked and self._trainer.global_step > 0:  # the optimizers have their states now
            self._checked = True
            self._state.check_can_save(point)
        if self._ranks.size == 1:  # after every step, so with as few calls as possible
            if self._signals.received is not None:
                self._on_signal(point, self._signals.received)
            self._act(point)
            return
        self._between_batches = point == "batch"
        if self._sync_due:
            self._sync(point)

    def batch_begins(self) -> None:
        """Exchange before a batch whether the ranks have to sync; called on each of several ranks.

        A signal ends the fit here if the last boundary of all ranks is the one after the previous batch, and otherwise
        at the next boundary. The ranks may be at different boundaries: they have as many batches, and perhaps not as
        many epochs.
        """
        asked, elsewhere = self._ranks.all_reduce_max_of_batch(self._request(), int(not self._between_batches))
        self._between_batches = False
        if asked > _SYNC and not elsewhere:
            self._sync("batch")
        elif asked:
            self._sync_due = True

    def _request(self) -> int:
        """Return what this rank asks of the others before a batch: the number of a signal, ``_SYNC``, or 0."""
        if self._signals.received is not None:
            return int(getattr(signal, self._signals.received))
        if self.follower is not None:
            return 0
        # The real time between two boundaries is unrelated to the simulated time.
        due = self._is_simulated or time.monotonic() - self._synced_at >= SYNC_SECONDS
        return _SYNC if due or (self._state.limits.epochs_only and may_be_last_batch(self._trainer)) else 0

    def _sync(self, point: Point) -> None:
        """Act as rank 0 decides, on all ranks at the same boundary."""
        self._sync_due = False
        stop = self.agreed_signal()
        if self.follower is not None:
            self._follow(self.follower, point)
            return
        if stop is not None:
            self._on_signal(point, stop)
        self._act(point)
        self._synced_at = time.monotonic()
        self._ranks.send(Command.CONTINUE)

    def agreed_signal(self) -> str | None:
        """Return the signal that asks any process of this training to stop, or None; all ranks call it together."""
        own = self._signals.received
        number = self._ranks.all_reduce_max(0 if own is None else int(getattr(signal, own)))
        return None if number == 0 else signal.Signals(number).name

    def stop_requested(self) -> bool:
        """Return whether a signal asks to stop; during a hold, this keeps the other ranks waiting."""
        self._ranks.send(Command.HEARTBEAT)
        return self.agreed_signal() is not None

    def end_hold(self, seconds: float) -> None:
        """End a hold of ``seconds`` of real time: it does not count against Lightning's limits of wall time."""
        exclude_pause(self._trainer, seconds)
        self._ranks.send(Command.RESUME, seconds)

    def _act(self, point: Point) -> None:
        if self._is_simulated:
            self._session.sample_if_due()
        for action in self._actions:
            action(point)
        self._state.save_if_due(point)

    def _follow(self, follower: WorkerRank, point: Point) -> None:
        """Follow rank 0 until it continues."""
        ends = follower.follow(lambda number: self._state.dump(point, number), self.agreed_signal)
        if ends is not None:
            self._on_command(*ends)
