"""Functions for the callbacks that compress a model: length of the training, progress, and order of the callbacks."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from lightning_green._lightning.callbacks import CallbackOfBothPackages
from lightning_green._lightning.namespaces import both
from lightning_green.compression.schedules import Moment
from lightning_green.run.logger_records import plain

log = logging.getLogger(__name__)

_NAMED = 5  # in a message


class CompressionCallback(CallbackOfBothPackages):
    """A callback that compresses a model, with its arguments for the loggers.

    Args:
        arguments: Its arguments, for example ``locals()`` at the beginning of ``__init__``.

    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        given = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
        self._settings: dict[str, Any] = plain(given)

    def settings(self) -> dict[str, Any]:
        """Return the arguments as JSON data without secrets; objects as the name of their class."""
        return dict(self._settings)


@dataclass(frozen=True)
class TrainingLength:
    """Length of a training.

    Args:
        steps: Optimizer steps of the whole training.
        steps_per_epoch: Optimizer steps of one epoch.

    """

    steps: int
    steps_per_epoch: int

    @classmethod
    def of(cls, trainer: pl.Trainer, total_steps: int | None) -> TrainingLength:
        """Return the length of a Trainer's fit.

        Args:
            trainer: The Trainer, after its loaders are set up.
            total_steps: The user's value, which takes precedence.

        Raises:
            ValueError: If the user gives no value and the Trainer cannot compute it.

        """
        per_epoch = trainer.num_training_batches / trainer.accumulate_grad_batches
        total = total_steps or trainer.estimated_stepping_batches
        if not math.isfinite(total) or total < 1:
            raise ValueError("`total_steps` should be set, because the Trainer cannot compute it.")
        return cls(int(total), math.ceil(per_epoch) if math.isfinite(per_epoch) else int(total))

    def step(self, moment: Moment) -> int:
        """Return the number of optimizer steps before a moment."""
        return moment.step(self.steps, self.steps_per_epoch)


def optimizer_steps(trainer: pl.Trainer) -> int:
    """Return the number of optimizer steps so far, in the unit of ``TrainingLength``.

    With manual optimization, batches count instead: the script decides how many steps there are in one, of how many
    optimizers, and the Trainer estimates the length of the training in batches.
    """
    if not trainer.lightning_module.automatic_optimization:
        return int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)  # type: ignore[attr-defined]
    return trainer.global_step // max(1, len(trainer.optimizers))


def averages_weights(trainer: pl.Trainer) -> bool:
    """Return whether the Trainer keeps an average of the weights."""
    return any(isinstance(callback, both(WeightAveraging)) for callback in callbacks_of(trainer))


def callbacks_of(trainer: pl.Trainer) -> list[Callback]:
    """Return the Trainer's callbacks."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def refuse_sharded(trainer: pl.Trainer, name: str) -> None:
    """Raise a ``ValueError`` if the strategy splits parameters over devices."""
    if isinstance(trainer.strategy, both(FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)):
        raise ValueError(
            f"`{name}` does not support sharded parameters, got the strategy {type(trainer.strategy).__name__}."
        )


def put_in_order(trainer: pl.Trainer) -> None:
    """Sort the Trainer's compression callbacks: pruning, then quantization, then distillation.

    Quantization needs the network after the removal of channels, and distillation needs the quantized outputs.
    """
    callbacks = callbacks_of(trainer)
    places = [i for i, callback in enumerate(callbacks) if hasattr(callback, "compression_order")]
    ordered = sorted((callbacks[i] for i in places), key=lambda c: int(c.compression_order))  # type: ignore[attr-defined]
    if ordered == [callbacks[i] for i in places]:
        return
    new = list(callbacks)
    for place, callback in zip(places, ordered, strict=True):
        new[place] = callback
    trainer.callbacks = new  # type: ignore[attr-defined]
    rank_zero_info(f"The compression callbacks run in the order {', '.join(type(c).__name__ for c in ordered)}.")


def report_left(left: Mapping[str, str], total: int, what: str) -> None:
    """Log in one line what pruning leaves as it is, and at the level ``DEBUG`` all of it.

    Args:
        left: The reason of each, by name.
        total: Number of all of them.
        what: What they are.

    """
    if not left:
        return
    named = [f"`{name}` ({why})" for name, why in list(left.items())[:_NAMED]]
    more = [f"{len(left) - len(named)} more"] if len(left) > len(named) else []
    rank_zero_info(f"`Pruning` leaves {len(left)} of {total} {what} as they are: {', '.join(named + more)}.")
    rank_zero_only(log.debug)("\n".join(f"`{name}`: {why}" for name, why in left.items()))
