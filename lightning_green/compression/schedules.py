"""Schedules over a training: pure functions of the optimizer step."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lightning_green.utilities.validation import check_choice, check_fraction

SHAPES = ("constant", "linear", "cubic", "one_cycle")


def sparsity_at(progress: float, target: float, shape: str = "cubic", initial: float = 0.0) -> float:
    r"""Return the sparsity at a point of a schedule.

    With ``u`` the progress, ``s_i`` the initial and ``s_f`` the target sparsity:

    - ``"constant"``: ``s_f`` at once.
    - ``"linear"``: ``s_i + (s_f - s_i) u``.
    - ``"cubic"``: ``s_f + (s_i - s_f)(1 - u)^3``, equation 1 of Zhu and Gupta, "To prune, or not to prune"
      (arXiv 1710.01878).
    - ``"one_cycle"``: ``s_i + (s_f - s_i) (1 + exp(-a + b)) / (1 + exp(-a u + b))`` with ``a = 14`` and
      ``b = 5``, Hubens et al., "One-Cycle Pruning" (arXiv 2107.02086).

    Args:
        progress: Fraction of the way from the begin to the end, clipped to [0, 1].
        target: Sparsity at the end, a fraction in [0, 1].
        shape: ``"constant"``, ``"linear"``, ``"cubic"`` or ``"one_cycle"``.
        initial: Sparsity at the begin, a fraction in [0, 1].

    Raises:
        ValueError: If ``shape`` is unknown or a sparsity is out of range.

    Examples:
        >>> [round(sparsity_at(u, 0.8), 3) for u in (0, 0.25, 0.5, 1)]
        [0.0, 0.463, 0.7, 0.8]

    """
    check_choice("shape", shape, SHAPES)
    check_fraction("target", target)
    check_fraction("initial", initial)
    u = min(max(progress, 0.0), 1.0)
    if shape == "constant" or u == 1.0:
        return target
    if shape == "linear":
        return initial + (target - initial) * u
    if shape == "cubic":
        return target + (initial - target) * (1.0 - u) ** 3
    alpha, beta = 14.0, 5.0
    return initial + (target - initial) * (1 + math.exp(-alpha + beta)) / (1 + math.exp(-alpha * u + beta))


@dataclass(frozen=True)
class Moment:
    """A point of a training: a fraction of its optimizer steps, or the start of an epoch.

    Args:
        value: Fraction in [0, 1], or number of epochs before the moment.
        in_epochs: Whether ``value`` counts epochs.

    """

    value: float
    in_epochs: bool = False

    @classmethod
    def parse(cls, name: str, value: float | str) -> Moment:
        """Return the moment of an argument: ``0.3`` is 30 % of the training, ``"3ep"`` is the start of epoch 3.

        Raises:
            TypeError: If ``value`` is neither a number nor a string.
            ValueError: If it is out of [0, 1], or a string that is not a number followed by ``ep``.

        Examples:
            >>> Moment.parse("begin", "3ep").step(total_steps=100, steps_per_epoch=20)
            60

        """
        if isinstance(value, str):
            match = re.fullmatch(r"(\d+)\s*ep", value.strip())
            if match is None:
                raise ValueError(f"`{name}` should be a fraction in [0, 1] or epochs such as '3ep', got {value!r}.")
            return cls(float(match.group(1)), in_epochs=True)
        return cls(check_fraction(name, value))

    def step(self, total_steps: int, steps_per_epoch: int) -> int:
        """Return the number of optimizer steps before the moment."""
        if self.in_epochs:
            return int(self.value) * steps_per_epoch
        return round(self.value * total_steps)


@dataclass(frozen=True)
class Span:
    """The scheduled steps from ``begin`` to ``end``, both included.

    Args:
        begin: The first scheduled step.
        end: The last scheduled step, at least ``begin``.
        every_n_steps: Steps between two scheduled steps.

    """

    begin: int
    end: int
    every_n_steps: int

    def latest(self, step: int) -> int:
        """Return the last scheduled step at or before ``step``; -1 before the first.

        Examples:
            >>> [Span(10, 25, 10).latest(step) for step in (9, 10, 24, 25, 99)]
            [-1, 10, 20, 25, 25]

        """
        if step < self.begin:
            return -1
        if step >= self.end:
            return self.end
        return step - (step - self.begin) % self.every_n_steps

    def progress(self, step: int) -> float:
        """Return the fraction of the way from ``begin`` to ``end``, clipped to [0, 1]."""
        if step >= self.end:
            return 1.0
        return max(0.0, (step - self.begin) / (self.end - self.begin))


@dataclass(frozen=True)
class Ramp:
    """A number that changes linearly during a training, such as the weight of a loss.

    Args:
        start: Value before ``begin``.
        stop: Value after ``end``.
        begin: Fraction of the training at which the change starts.
        end: Fraction of the training at which the change ends.

    Raises:
        ValueError: If a fraction is not in [0, 1], or ``end`` comes before ``begin``.

    Examples:
        >>> Ramp(1.0, 0.0, begin=0.5)(0.75)
        0.5

    """

    start: float
    stop: float
    begin: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        check_fraction("begin", self.begin)
        check_fraction("end", self.end)
        if self.end < self.begin:
            raise ValueError(f"`end` should not come before `begin` ({self.begin}), got {self.end}.")

    def __call__(self, progress: float) -> float:
        """Return the value at a fraction of the training."""
        if progress >= self.end:
            return self.stop
        if progress <= self.begin:
            return self.start
        return self.start + (self.stop - self.start) * (progress - self.begin) / (self.end - self.begin)
