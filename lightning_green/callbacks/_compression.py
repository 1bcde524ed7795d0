"""What the callbacks that make a model smaller share: where the training is, and in which order they run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info

from lightning_green.compression.schedules import Moment


@dataclass(frozen=True)
class TrainingLength:
    """How long a training is.

    Args:
        steps: Optimizer steps of the whole training.
        steps_per_epoch: Optimizer steps of an epoch.

    """

    steps: int
    steps_per_epoch: int

    @classmethod
    def of(cls, trainer: pl.Trainer, total_steps: int | None) -> TrainingLength:
        """Return the length of a Trainer's fit.

        Args:
            trainer: The Trainer, with its loaders set up.
            total_steps: What the user said, which wins.

        Raises:
            ValueError: If neither the user nor the Trainer knows it.

        """
        per_epoch = trainer.num_training_batches / trainer.accumulate_grad_batches
        total = total_steps or trainer.estimated_stepping_batches
        if not math.isfinite(total) or total < 1:
            raise ValueError("`total_steps` should be set, because the Trainer does not know how long it trains.")
        return cls(int(total), math.ceil(per_epoch) if math.isfinite(per_epoch) else int(total))

    def step(self, moment: Moment) -> int:
        """Return the number of optimizer steps before a moment."""
        return moment.step(self.steps, self.steps_per_epoch)


def optimizer_steps(trainer: pl.Trainer) -> int:
    """Return the number of optimizer steps so far; several optimizers of a batch count once."""
    return trainer.global_step // max(1, len(trainer.optimizers))


def averages_weights(trainer: pl.Trainer) -> bool:
    """Return whether the Trainer keeps an average of the weights."""
    return any(isinstance(callback, WeightAveraging) for callback in callbacks_of(trainer))


def callbacks_of(trainer: pl.Trainer) -> list[Callback]:
    """Return the Trainer's callbacks."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def refuse_sharded(trainer: pl.Trainer, name: str) -> None:
    """Raise a ``ValueError`` if the strategy splits parameters over devices."""
    if isinstance(trainer.strategy, (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)):
        raise ValueError(f"`{name}` needs whole parameters, but {type(trainer.strategy).__name__} shards them.")


def put_in_order(trainer: pl.Trainer) -> None:
    """Let pruning act before quantization, and that before distillation, whatever their order in the list.

    Removed channels change the network that is then quantized, and distillation reads what the quantized one answers.
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
    rank_zero_info(f"These callbacks run in this order: {', '.join(type(c).__name__ for c in ordered)}.")
