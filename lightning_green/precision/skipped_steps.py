"""Count of optimizer steps that were skipped because of an overflow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class SkippedSteps:
    """Count skipped optimizer steps and the scheduler steps to skip for them.

    Attributes:
        total: Skipped steps, over all restarts of the run.
        consecutive: Skipped steps since the last successful step.

    """

    def __init__(self) -> None:
        self.total = 0
        self.consecutive = 0
        self._unread: list[tuple[Tensor, torch.cuda.Event | None]] = []
        self._scheduler_skips: dict[int, int] = {}

    @property
    def has_unread(self) -> bool:
        """Whether a step was added and not read yet."""
        return bool(self._unread)

    def add(self, overflow: Tensor) -> None:
        """Add the outcome of a step without waiting for the device.

        Args:
            overflow: Scalar, above zero if the step was skipped.

        """
        event = None
        if overflow.device.type == "cuda":
            overflow = overflow.to("cpu", non_blocking=True)  # in pinned memory
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._unread.append((overflow, event))

    def read(self, schedulers: int) -> bool:
        """Count the steps that were added, and wait for the device if needed.

        Args:
            schedulers: Number of learning-rate schedulers.

        Returns:
            Whether one of the steps was skipped.

        """
        before, unread, self._unread = self.total, self._unread, []
        for overflow, event in unread:
            if event is not None:
                event.synchronize()
            if not float(overflow) > 0:
                self.consecutive = 0
                continue
            self.total += 1
            self.consecutive += 1
            for index in range(schedulers):
                self._scheduler_skips[index] = self._scheduler_skips.get(index, 0) + 1
        return self.total > before

    def skip_scheduler(self, index: int, frequency: int) -> bool:
        """Return whether a scheduler that is due skips its step, once per ``frequency`` skipped optimizer steps."""
        if self._scheduler_skips.get(index, 0) < frequency:
            return False
        self._scheduler_skips[index] -= frequency
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the counts for a checkpoint."""
        return {
            "skipped_steps": self.total,
            "consecutive_skips": self.consecutive,
            "schedule_debts": dict(self._scheduler_skips),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the counts. Missing entries are zero."""
        self.total = int(state.get("skipped_steps", 0))
        self.consecutive = int(state.get("consecutive_skips", 0))
        self._scheduler_skips = {int(index): int(skips) for index, skips in state.get("schedule_debts", {}).items()}
