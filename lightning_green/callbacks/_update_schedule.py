"""Optimizer steps at which the ``Pruning`` callback updates masks or removes channels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl

from lightning_green.callbacks._compression import TrainingLength
from lightning_green.compression.schedules import Moment, Span


class UpdateSchedule:
    """The updates of one training: from which step to which step, how often, and the last one made.

    An update that could not be made at its step stays due until it is made.

    Args:
        begin: First update.
        end: Last update, at which the target is reached.
        every_n_steps: Optimizer steps between two updates. None for an equal division into ``default_updates``.
        total_steps: Optimizer steps of the whole training; None to ask the Trainer.
        default_updates: Number of intervals between ``begin`` and ``end`` without ``every_n_steps``.

    Attributes:
        span: The steps of the updates; None before ``start``.
        last_step: Step of the last update that was made; -1 before the first.
        steps: Optimizer steps that the training is expected to make.
        reached: Progress of the last update that was made.

    """

    def __init__(
        self, begin: Moment, end: Moment, every_n_steps: int | None, total_steps: int | None, default_updates: int
    ) -> None:
        self.begin, self.end = begin, end
        self.every_n_steps, self.total_steps, self.default_updates = every_n_steps, total_steps, default_updates
        self.span: Span | None = None
        self.last_step = -1
        self.steps = 0
        self.reached = 0.0

    def start(self, trainer: pl.Trainer) -> None:
        """Compute the steps of the updates for a Trainer's fit.

        Raises:
            ValueError: If ``end`` comes before ``begin``, or the length of the training is unknown.

        """
        length = TrainingLength.of(trainer, self.total_steps)
        self.steps = length.steps
        begin, end = length.step(self.begin), length.step(self.end)
        if end < begin:
            raise ValueError(
                f"`end` should not come before `begin`: they are steps {end} and {begin} of {length.steps}."
            )
        end = max(0, min(end, length.steps - 1))  # an update after the last step would never be made
        every = self.every_n_steps or max(1, math.ceil((end - begin) / self.default_updates))
        self.span = Span(min(begin, end), end, every)

    def is_due(self, step: int) -> bool:
        """Return whether an update is scheduled at or before ``step`` and has not been made."""
        assert self.span is not None
        return self.span.latest(step) > self.last_step

    def progress(self, step: int) -> float:
        """Return the fraction of the way from the first update to the last, in [0, 1].

        It never falls: a finished training that gets more epochs has a longer way, and keeps what it has reached.
        """
        assert self.span is not None
        return max(self.span.progress(step), self.reached)

    def note_update(self, step: int) -> None:
        """Note that the update of a step has been made."""
        self.reached, self.last_step = self.progress(step), step

    def reset(self) -> None:
        """Begin again, for another model."""
        self.reached, self.last_step = 0.0, -1

    def state_dict(self) -> dict[str, float]:
        """Return the last update."""
        return {"last_step": self.last_step, "reached": self.reached}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the last update."""
        self.last_step, self.reached = state["last_step"], state.get("reached", 0.0)
