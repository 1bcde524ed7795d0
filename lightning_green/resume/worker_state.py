"""State that worker processes have for themselves: observed there, because no process can save it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lightning_green.resume.pipeline_state import PipelineState
from lightning_green.resume.random_states import equal_states, global_states

_MAX_CHARACTERS = 200
_OBSERVED_BATCHES = 4


class Observed:
    """The name of a state that a worker has changed, in memory that the workers share with this process."""

    def __init__(self) -> None:
        self._content = torch.zeros(_MAX_CHARACTERS, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]

    def text(self) -> str:
        """Return the name; an empty string if no change was observed."""
        return bytes(self._content.tolist()).rstrip(b"\0").decode(errors="ignore")

    def report(self, name: str) -> None:
        """Set the name."""
        content = name.encode()[:_MAX_CHARACTERS]
        self._content[: len(content)] = torch.tensor(list(content), dtype=torch.uint8)


class WorkerObserver:
    """Compares the state of a dataset before and after its first batches in a worker, and then less often.

    Args:
        observed: Receives what has changed.

    """

    def __init__(self, observed: Observed) -> None:
        self._observed, self._number, self._drew = observed, 0, False
        self._state: PipelineState | None = None

    @contextmanager
    def observing(self, dataset: Any, collate_fn: Any) -> Iterator[None]:
        """Observe the loading of one batch."""
        self._number += 1
        due = self._number <= _OBSERVED_BATCHES or self._number & (self._number - 1) == 0
        if not due or self._observed.text():
            yield
            return
        before = global_states()
        self._compare(dataset, collate_fn, is_read=False)
        yield
        self._drew = self._drew or not equal_states(before, global_states())
        self._compare(dataset, collate_fn, is_read=True)

    def _compare(self, dataset: Any, collate_fn: Any, is_read: bool) -> None:
        """Find the state before the first batch, and compare it after each."""
        try:
            self._state = self._state or PipelineState(dataset, collate_fn, keeps_contents=True)
            found = self._state.first_change(fills=not self._drew) if is_read else ""
        except Exception as error:  # noqa: BLE001 - an object of the script may raise anything when it is read
            found = f"the dataset, which cannot be compared ({error!r})"
        if found:
            self._observed.report(found)
