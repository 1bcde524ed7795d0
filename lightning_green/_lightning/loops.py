"""The training loops of Lightning: their position, their restart flags, and callbacks between batches and epochs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import lightning.pytorch as pl
from lightning.pytorch.loops.progress import _ProcessedTracker
from lightning.pytorch.trainer.states import RunningStage

from lightning_green._lightning.replaced import call_all, replace_method

if TYPE_CHECKING:
    from lightning.pytorch.loops.loop import _Loop


def _loops(trainer: pl.Trainer) -> list[_Loop]:
    fit_loop = trainer.fit_loop
    return [fit_loop, fit_loop.epoch_loop, fit_loop.epoch_loop.val_loop]


def clear_restart_flags(trainer: pl.Trainer) -> None:
    """Make the loops continue as if they had never been restored.

    Lightning repairs checkpoints that were saved inside a hook. A state that was saved between two batches needs no
    repair: it would skip a validation, count a step twice, or not step a plateau scheduler.
    """
    for loop in _loops(trainer):
        loop._restarting = False
        loop._loaded_from_state_dict = False
        loop._resuming_from_checkpoint = False
        loop.reset_restart_stage()


def skip_training(trainer: pl.Trainer, check: Callable[[], None]) -> Callable[[], None]:
    """Make the fit loop set up its data, call ``check`` and train nothing; return a function that undoes it."""

    def run() -> None:
        loop = trainer.fit_loop
        loop.setup_data()
        # as at the start of a training, whose validation loaders a later fit may share
        if loop.epoch_loop._should_check_val_epoch() and trainer.val_dataloaders is None:
            trainer.validating = True
            loop.epoch_loop.val_loop.setup_data()
            trainer.training = True
        check()

    return replace_method(trainer.fit_loop, "run", run)


def wrap_sanity_check(trainer: pl.Trainer, before: Callable[[], None], after: Callable[[], None]) -> Callable[[], None]:
    """Call functions before and after the sanity check and all its hooks, also if the fit has none.

    Return a function that removes the calls.
    """
    original = trainer._run_sanity_check

    def run_sanity_check() -> None:
        before()
        original()
        after()

    return replace_method(trainer, "_run_sanity_check", run_sanity_check)


def should_accumulate(trainer: pl.Trainer) -> bool:
    """Return whether the gradients of the last batch are accumulated and their optimizer step is still due."""
    return trainer.fit_loop._should_accumulate()


def between_steps(trainer: pl.Trainer) -> bool:
    """Return whether no optimizer step is due and the epoch continues after the last batch."""
    loop = trainer.fit_loop.epoch_loop
    return loop._accumulated_batches_reached() and not loop._num_ready_batches_reached()


def may_be_last_batch(trainer: pl.Trainer) -> bool:
    """Return whether the batch that is fetched next may be the last one of its epoch."""
    total = trainer.num_training_batches
    ready = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    return total == float("inf") or ready + 1 >= total


def batch_position(trainer: pl.Trainer) -> tuple[int, int]:
    """Return the number of finished epochs, and of finished batches in the current epoch."""
    fit_loop = trainer.fit_loop
    epochs = cast(_ProcessedTracker, fit_loop.epoch_progress.current)
    return epochs.processed, fit_loop.epoch_loop.batch_progress.current.ready


def mean_batches_per_epoch(trainer: pl.Trainer) -> float | None:
    """Return the mean number of batches of the finished epochs; None in the first epoch."""
    epochs = cast(_ProcessedTracker, trainer.fit_loop.epoch_progress.current)
    if not epochs.processed:
        return None
    batches = trainer.fit_loop.epoch_loop.batch_progress
    in_epoch = batches.current.ready if epochs.ready > epochs.processed else 0  # reset when the next epoch begins
    return (batches.total.ready - in_epoch) / epochs.processed


def is_training_stage(trainer: pl.Trainer) -> bool:
    """Return whether the loaders that are processed at this moment are training loaders."""
    return bool(trainer.state.stage == RunningStage.TRAINING)


def wrap_loops(
    trainer: pl.Trainer,
    is_tuning: Callable[[], bool],
    before_epoch: Callable[[], None],
    before_batches: Callable[[], None],
    after_batch: Callable[[], None],
    after_run: Callable[[], None],
    before_batch: Callable[[], None] | None = None,
) -> Callable[[], None]:
    """Call functions between epochs and between batches, where no hook is running.

    Args:
        trainer: The trainer whose fit loop is wrapped.
        is_tuning: Returns whether a tuner uses the loops at this moment; no function is called then.
        before_epoch: Called before ``on_train_epoch_start``, once the previous epoch is complete.
        before_batches: Called in the loop of an epoch, once its counters are restored and before its first batch.
        after_batch: Called once a batch is complete: its hooks, a validation that was due, and its logging.
        after_run: Called after every ``on_train_end``.
        before_batch: Called on each of several ranks before a batch is fetched, in place of Lightning's broadcast of
            a received SIGTERM.

    Returns:
        A function that removes the calls.

    """
    fit_loop, epoch_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    advance_start, run_start = fit_loop.on_advance_start, epoch_loop.on_run_start
    advance_end, run_end = epoch_loop.on_advance_end, fit_loop.on_run_end
    broadcast_sigterm = epoch_loop._broadcast_sigterm_tensor

    def on_advance_start() -> None:
        if not is_tuning():
            before_epoch()
        advance_start()

    def on_run_start(data_fetcher: Any) -> None:
        tuning = is_tuning()
        if not tuning:
            before_batches()
        run_start(data_fetcher)
        if epoch_loop.restarting and not tuning:
            clear_restart_flags(trainer)

    def on_advance_end(data_fetcher: Any) -> None:
        advance_end(data_fetcher)
        if not is_tuning():
            after_batch()

    def broadcast() -> None:
        if before_batch is None or is_tuning():
            broadcast_sigterm()
        else:
            before_batch()

    def on_run_end() -> None:
        run_end()
        if not is_tuning():
            after_run()

    return call_all(
        replace_method(fit_loop, "on_advance_start", on_advance_start),
        replace_method(epoch_loop, "on_run_start", on_run_start),
        replace_method(epoch_loop, "on_advance_end", on_advance_end),
        replace_method(epoch_loop, "_broadcast_sigterm_tensor", broadcast),
        replace_method(fit_loop, "on_run_end", on_run_end),
    )
