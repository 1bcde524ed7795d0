"""Remaining work of a fit from measured step times and the limits of the Trainer."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, Timer

from lightning_green._lightning.loops import batch_position, mean_batches_per_epoch
from lightning_green._lightning.namespaces import both

WARM_UP_BATCHES = 2  # compilation, caches, the first allocation
ENOUGH_BATCHES = 3
WINDOW = 32


@dataclass(frozen=True)
class RemainingWork:
    """Remaining work of a fit.

    Args:
        seconds: Seconds at full speed, including validation, up to the limits of the Trainer; None if it sets none.
        why: The limit that determines the number, or the reason why there is none.
        least: Seconds after which ``EarlyStopping`` may end the training at the earliest, or None. The number between
            ``least`` and ``seconds`` is not known, and a plan for ``seconds`` keeps the deadline in any case.

    """

    seconds: float | None
    why: str
    least: float | None = None


class StepTimer:
    """Seconds per training batch and per validation, without pauses.

    Args:
        seconds_per_batch: Measurement of an earlier process, used until this one has enough batches.
        seconds_per_validation: Measurement of an earlier process for a whole validation.

    """

    def __init__(self, seconds_per_batch: float | None = None, seconds_per_validation: float | None = None) -> None:
        self._per_batch, self._per_validation = seconds_per_batch, seconds_per_validation
        self._batches = 0
        self._anchors: deque[tuple[int, float]] = deque(maxlen=WINDOW)
        self._excluded = 0.0
        self._validation_began: float | None = None

    def batch(self, now: float) -> None:
        """Record the end of a batch at ``now`` (monotonic seconds)."""
        self._batches += 1
        if self._batches < WARM_UP_BATCHES:
            return
        at = now - self._excluded
        if not self._anchors or at - self._anchors[-1][1] > 5.0 or self._batches < WINDOW:
            self._anchors.append((self._batches, at))

    def exclude(self, seconds: float) -> None:
        """Exclude seconds that were not spent on training batches."""
        self._excluded += seconds

    def validation_began(self, now: float) -> None:
        """Record the start of a validation at ``now`` (monotonic seconds)."""
        self._validation_began = now

    def validation_ended(self, now: float) -> None:
        """Record the end of a validation at ``now`` (monotonic seconds)."""
        if self._validation_began is not None:
            seconds = now - self._validation_began
            self._per_validation = seconds if self._per_validation is None else (self._per_validation + seconds) / 2
            self._excluded += seconds
            self._validation_began = None

    @property
    def seconds_per_batch(self) -> float | None:
        """Mean seconds of a training batch over the last minutes; None until a few batches have been measured."""
        if len(self._anchors) > 1:
            (first, began), (last, ended) = self._anchors[0], self._anchors[-1]
            if last - first >= ENOUGH_BATCHES:
                return (ended - began) / (last - first)
        return self._per_batch

    @property
    def seconds_per_validation(self) -> float | None:
        """Mean seconds of a validation; None until one has been measured."""
        return self._per_validation


def remaining_work(trainer: pl.Trainer, timer: StepTimer) -> RemainingWork:
    """Return the remaining work until the nearest of ``max_epochs``, ``max_steps`` and ``max_time``."""
    per_batch = timer.seconds_per_batch
    if per_batch is None:
        return RemainingWork(None, "the time of a step has not been measured yet")
    batches, why = _remaining_batches(trainer)
    limit = _seconds_limit(trainer)
    if batches is None:
        return RemainingWork(limit, "`max_time`") if limit is not None else RemainingWork(None, why)
    least = _seconds_to_early_stop(trainer, timer, per_batch)
    seconds = batches * per_batch + _remaining_validations(trainer, batches) * _validation_seconds(
        trainer, timer, per_batch
    )
    if limit is not None and limit < seconds:
        seconds, why = limit, "`max_time`"
    return RemainingWork(seconds, why, least if least is not None and least < seconds else None)


def _remaining_batches(trainer: pl.Trainer) -> tuple[float | None, str]:
    found: list[tuple[float, str]] = []
    if trainer.max_steps is not None and trainer.max_steps >= 0:
        # With several optimizers, `global_step` counts each optimizer's steps; a batch is one step of each.
        steps = max(0, trainer.max_steps - trainer.global_step)
        per_batch = max(1, len(trainer.optimizers)) / trainer.accumulate_grad_batches
        found.append((steps / per_batch, "`max_steps`"))
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        epoch_batches = _batches_per_epoch(trainer)
        if epoch_batches is not None:
            done = batch_position(trainer)[0] * epoch_batches
            in_epoch = trainer.fit_loop.epoch_loop.batch_progress.current.completed
            in_epoch = 0 if in_epoch >= epoch_batches else in_epoch
            found.append((max(0.0, trainer.max_epochs * epoch_batches - done - in_epoch), "`max_epochs`"))
        elif not found:
            return None, "the training loader has no length, so the remaining work is known after the first epoch"
    return min(found) if found else (None, "the Trainer has no `max_epochs`, `max_steps` or `max_time`")


def _batches_per_epoch(trainer: pl.Trainer) -> float | None:
    """Return the batches of an epoch; their mean if the loader has no length, and None in the first epoch then."""
    batches = trainer.num_training_batches
    return batches if batches != float("inf") else mean_batches_per_epoch(trainer)


def _seconds_limit(trainer: pl.Trainer) -> float | None:
    timers = [callback for callback in trainer.callbacks if isinstance(callback, both(Timer))]  # type: ignore[attr-defined]
    remaining = [timer.time_remaining() for timer in timers]
    known = [seconds for seconds in remaining if seconds is not None]
    return min(known) if known else None


def _seconds_to_early_stop(trainer: pl.Trainer, timer: StepTimer, per_batch: float) -> float | None:
    """Return the seconds until the first check that may end the training, if its metric does not improve until then.

    Not before ``min_epochs`` and ``min_steps``. A threshold of ``EarlyStopping`` may end it at the next check.
    """
    stoppers = [one for one in trainer.callbacks if isinstance(one, both(EarlyStopping))]  # type: ignore[attr-defined]
    epoch_batches = _batches_per_epoch(trainer)
    if not stoppers or not epoch_batches:
        return None
    every = _batches_per_validation(trainer, epoch_batches) if trainer.enable_validation else epoch_batches
    checks = min(
        1
        if one.stopping_threshold is not None or one.divergence_threshold is not None
        else max(1, one.patience - one.wait_count)
        for one in stoppers
    )
    done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
    first = (done // every + checks) * every - done
    steps_per_batch = max(1, len(trainer.optimizers)) / trainer.accumulate_grad_batches
    least = max(
        first,
        ((trainer.min_epochs or 0) * epoch_batches) - done,
        ((trainer.min_steps or 0) - trainer.global_step) / steps_per_batch,
    )
    return least * per_batch + _remaining_validations(trainer, least) * _validation_seconds(trainer, timer, per_batch)


def _remaining_validations(trainer: pl.Trainer, batches: float) -> float:
    epoch_batches = _batches_per_epoch(trainer)
    if not trainer.enable_validation or not epoch_batches:
        return 0.0
    return batches / _batches_per_validation(trainer, epoch_batches)


def _batches_per_validation(trainer: pl.Trainer, epoch_batches: float) -> float:
    every = trainer.val_check_batch or epoch_batches
    every = epoch_batches if every == float("inf") else every
    if trainer.check_val_every_n_epoch is not None:
        every = every * trainer.check_val_every_n_epoch
    return every


def _validation_seconds(trainer: pl.Trainer, timer: StepTimer, per_batch: float) -> float:
    if timer.seconds_per_validation is not None:
        return timer.seconds_per_validation
    # Not measured yet. A validation batch without backward pass takes no longer than a training batch.
    batches = sum(count for count in trainer.num_val_batches if count != float("inf"))
    return batches * per_batch
