"""What the callbacks of one Trainer ask for together."""

from __future__ import annotations

from dataclasses import dataclass, fields

from lightning_green.energy.meter import Meter
from lightning_green.grid.registry import GridLike
from lightning_green.run.pue import Pue
from lightning_green.utilities.clock import Clock


@dataclass
class RunOptions:
    """Options of a run; a default means that a callback has no preference.

    Args:
        grid: Carbon intensity; see ``build_grid``.
        zone: Grid zone, for a grid that does not name one.
        meter: Energy meter; see ``build_meter``.
        pue: Power usage effectiveness, see ``build_pue``; None means 1.
        clock: Clock of the run; None for the system clock.

    Raises:
        TypeError: If ``clock`` is not a clock or ``zone`` is not a string.

    """

    grid: GridLike = None
    zone: str | None = None
    meter: Meter | str | float | None = "auto"
    pue: Pue | None = None
    clock: Clock | None = None

    def __post_init__(self) -> None:
        """Refuse arguments that would fail only after the training has started."""
        if self.clock is not None and not isinstance(self.clock, Clock):
            raise TypeError(f"`clock` should be a SystemClock(), a SimulatedClock(...) or None, got {self.clock!r}.")
        if self.zone is not None and not (isinstance(self.zone, str) and self.zone.strip()):
            raise TypeError(f'`zone` should be a string such as "DE", or None, got {self.zone!r}.')

    def join(self, other: RunOptions) -> RunOptions:
        """Return the options of both.

        Raises:
            ValueError: If they contradict each other.

        """
        merged = RunOptions()
        for field in fields(RunOptions):
            name, default = field.name, field.default
            mine, others = getattr(self, name), getattr(other, name)
            if mine != default and others != default and mine != others:
                raise ValueError(
                    f"Two callbacks of this Trainer were given different `{name}`: {mine!r} and {others!r}. Give it to "
                    "one of them, or the same to both."
                )
            setattr(merged, name, others if mine == default else mine)
        return merged
