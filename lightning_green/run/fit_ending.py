"""How a fit ends: it finishes, exits until a planned time, is interrupted, or fails."""

from __future__ import annotations

import hashlib
import logging
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum
from typing import NoReturn

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_green._lightning.loggers import logging_step
from lightning_green._lightning.namespaces import both
from lightning_green._lightning.planned_exit import skip_exception_hooks, tear_down
from lightning_green._lightning.process import is_spawned, stop_other_ranks
from lightning_green._lightning.signals import requeue_signal
from lightning_green.ledger.events import Failed, Finished, Interrupted, Paused
from lightning_green.resume.training_state import Point
from lightning_green.run import loggers
from lightning_green.run.continuing import continue_interrupted
from lightning_green.run.node_sync import sync_ledgers
from lightning_green.run.saved_state import SavedState
from lightning_green.run.session import Session
from lightning_green.run.signals import StopSignals, raise_stop
from lightning_green.strategies.control_group import Command, ControlGroup
from lightning_green.strategies.lost_ranks import RankLostError
from lightning_green.supervisor.launchers import RunPausedExit, paused_exit_code, requeue, who_restarts

log = logging.getLogger(__name__)


class FitStage(Enum):
    """How far a fit is in this process."""

    NEW = "its callbacks are being set up"
    TRAINING = "it trains"
    EXITING = "it exits or was interrupted, and that is recorded"
    CLOSED = "it has ended"


class FitEnding:
    """Ends a fit and records how.

    Args:
        session: Session of the fit.
        trainer: The trainer.

    Attributes:
        ranks: Processes of the training.
        state: The saved training state; None if the fit is only metered.
        stage: How far the fit is.
        signals: Signals that ask to stop.
        undo: Called when the fit ends, the last first.
        thread: Name of the thread that trains; empty for the main thread.
        why_finished: Why the training ends before its limits; empty if it does not.

    """

    def __init__(self, session: Session, trainer: pl.Trainer) -> None:
        self.session, self.trainer = session, trainer
        self.ranks = ControlGroup()
        self.state: SavedState | None = None
        self.stage = FitStage.NEW
        self.signals = StopSignals()
        self.undo: list[Callable[[], None]] = []
        self.thread = ""
        self.why_finished = ""

    def exit_until(self, point: Point, paused: Paused, message: str | None = None) -> None:
        """Save the state and exit the process; something starts it again.

        Returns only if the state could not be saved.

        Args:
            point: Boundary, ``"batch"`` or ``"epoch"``.
            paused: Event with the planned time of the next start, recorded once the state is saved.
            message: Printed once the state is saved.

        Raises:
            RunPausedExit: To exit.

        """
        with _logger_errors_are_logged():
            loggers.log_to_all(self.trainer, self.session.metrics(), logging_step(self.trainer))
            loggers.flush(self.trainer)  # before the state contains what a logger keeps in memory
        if self.state is None or self.state.save(point, "exit") is None:
            return
        self.session.record_exit(paused)
        if message is not None:
            rank_zero_info(message)
        self.stage, self.session.run.stops = FitStage.EXITING, True
        self.ranks.send(Command.EXIT)
        code = self._exit_code()
        sync_ledgers(self.session, self.ranks)
        with _logger_errors_are_logged():
            loggers.summarize(self.trainer, self.session.summary())
            loggers.mark_preempting(self.trainer)
        tear_down(self.trainer)  # in which a script may finish its experiments
        with _logger_errors_are_logged():
            loggers.finish_experiments(self.trainer, code)
        self._raise_paused_exit(code)

    def interrupt(self, point: Point, name: str) -> NoReturn:
        """Save the state and stop as the signal ``name`` asks for."""
        with _logger_errors_are_logged():
            loggers.flush(self.trainer)  # before the state contains what a logger keeps in memory
        saved = self.state is not None and self.state.save(point, name) is not None
        how = "saved" if saved else "stopped, with nothing saved,"
        reason = f"{name}: {how} at step {self.trainer.global_step}"
        if not saved and self.state is not None and self.state.limits.epochs_only:
            reason += "; the run continues from the last saved epoch"
        self.session.record(Interrupted(reason=reason, signal=name))
        requeues = getattr(signal, name) == requeue_signal(self.trainer)
        has_checkpoint = saved or (self.state is not None and self.state.has_checkpoint)
        if has_checkpoint and who_restarts() is None and not requeues:
            done = "Saved" if saved else "Stopped"
            rank_zero_info(f"{done} at step {self.trainer.global_step}. {continue_interrupted(self.session.path)}")
        self.stage, self.session.run.stops = FitStage.EXITING, True
        self.ranks.send(Command.INTERRUPT, getattr(signal, name))
        self.close()
        if requeues:
            requeue()
        raise_stop(name, self.trainer)

    def follow(self, command: Command, number: int) -> NoReturn:
        """Exit or stop as rank 0 does."""
        self.stage = FitStage.EXITING
        if command == Command.EXIT:
            sync_ledgers(self.session, self.ranks)
            tear_down(self.trainer)
            self._raise_paused_exit(self._exit_code())
        self.close()
        raise_stop(signal.Signals(number).name, self.trainer)

    def _exit_code(self) -> int:
        """Return the exit code of this process for a planned exit."""
        spawned = is_spawned(self.trainer)  # the process that waits for it does not see those of other nodes
        return paused_exit_code(self.trainer.local_rank if spawned else self.ranks.rank)

    def _raise_paused_exit(self, code: int) -> NoReturn:
        self.close()
        skip_exception_hooks(self.trainer)
        raise RunPausedExit(code)

    def save_final(self) -> None:
        """Save the final state, after every ``on_train_end``."""
        self.signals.restore()
        if self.state is not None:
            self.state.save_final()

    def finish(self) -> None:
        """Record that the fit has finished; in ``on_fit_end``, where nothing can fail any more."""
        if self.stage is FitStage.CLOSED:
            return
        step = self.trainer.global_step
        if self.state is not None and self.state.source.is_final:
            self.state.exact.restore_finished()
            self.session.recorder.global_step = step
            self.session.record(Finished(reason=f"{step} steps done before", again=True))
        elif self.session.announced:
            self.session.take_last_sample()
            why = f"; {self.why_finished}" if self.why_finished else ""
            self.session.record(Finished(reason=f"{step} steps done{why}"))
        self.close()

    def fail(self, exception: BaseException) -> None:
        """Record that an exception has ended the fit."""
        if self.stage is FitStage.CLOSED:
            return
        described = isinstance(exception, RankLostError)  # by its message
        lost = "" if described or self.stage is FitStage.EXITING else self.ranks.describe_lost(exception)
        if lost:
            log.error("%s. The training has stopped.", lost)
        if self.stage is FitStage.NEW:
            stop_other_ranks(self.trainer)  # they would wait for this rank until a timeout
        if self.stage != FitStage.EXITING and self.session.announced:
            if isinstance(exception, (KeyboardInterrupt, *both(SIGTERMException))):
                name = "SIGINT" if isinstance(exception, KeyboardInterrupt) else "SIGTERM"
                self.session.run.stops = True
                self.session.record(Interrupted(reason=f"{name}: stopped at once", signal=name))
            else:
                text = "".join(traceback.format_exception(exception))
                name = f"{lost}: {type(exception).__name__}" if lost else type(exception).__name__
                self.session.record(
                    Failed(
                        reason=f"{name}: {str(exception)[:500]}",
                        traceback=hashlib.sha256(text.encode()).hexdigest()[:16],
                        thread=self.thread or None,
                    )
                )
        self.close()

    def close(self) -> None:
        """End the fit in this process, also if one of the steps raises."""
        self.stage = FitStage.CLOSED
        with ExitStack() as stack:  # the last first
            stack.callback(self.session.end)
            if self.session.run.ledger is not None:
                stack.callback(self.session.run.ledger.sync)
            for undo in self.undo:
                stack.callback(undo)
            stack.callback(self.signals.restore)


@contextmanager
def _logger_errors_are_logged() -> Iterator[None]:
    """Log an error of a logger, which should not prevent that the state is saved, or turn an exit into a failure."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - of any logger
        log.warning("A logger raised %s: %s. The exit continues.", type(error).__name__, error)
