"""Changes of the state of a data pipeline within a pass, which are repeated when the pass is read again."""

from __future__ import annotations

from typing import Any

from lightning_green.resume.pipeline_state import PipelineState

_CHECKED_READS, _SLOW_SECONDS = 8, 0.002
_MAX_CHANGES = 4


class PassRecord:
    """Changes of a state during a pass that do not come from reading, such as the weights that a training writes.

    Args:
        state: The state.
        later: Changes of the pass before it was interrupted, as pairs of a number of reads and a state.

    Attributes:
        later: The changes so far.

    """

    def __init__(self, state: PipelineState, later: list[tuple[int, dict[str, Any]]] | None = None) -> None:
        self._state, self.later = state, list(later or ())
        self._replayed = list(self.later)
        self._mark: int | None = None
        self._number, self._is_slow = 0, False

    def before_read(self, number: int) -> None:
        """Note or repeat a change before a read.

        Args:
            number: Number of reads before it.

        """
        while self._replayed and self._replayed[0][0] <= number:
            self._state.restore(self._replayed.pop(0)[1])
            self._mark = self._state.mark()
        self._number = number
        self.note_change()

    def note_change(self) -> None:
        """Note a change since the last read; before the state of the pass is saved."""
        if not self._replayed and self.is_changed and len(self.later) <= _MAX_CHANGES:
            if self.later and self.later[-1][0] == self._number:
                self.later.pop()
            self.later.append((self._number, self._state.capture()))
            self._mark = self._state.mark()

    def after_read(self, number: int) -> None:
        """Remember the state after a read; if that takes long, at few reads only."""
        self._number = number
        if self._is_slow and number > _CHECKED_READS and number & (number - 1):
            self._mark = None
            return
        self._mark = self._state.mark()
        self._is_slow = self._state.seconds_per_mark > _SLOW_SECONDS

    @property
    def is_changed(self) -> bool:
        """Whether the state has changed since the last read, as far as it is known."""
        return self._mark is not None and self._state.mark() != self._mark

    @property
    def changes_often(self) -> bool:
        """Whether there are more changes than are repeated after a resume."""
        return len(self.later) + self.is_changed > _MAX_CHANGES
