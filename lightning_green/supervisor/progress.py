"""How many jobs in a row have met their time limit without saving new progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_green.ledger.events import CheckpointSaved, Finished, Started
from lightning_green.supervisor.command import Trainings
from lightning_green.utilities.files import write_json
from lightning_green.utilities.reading import UnreadableFileError, read_json

FILE = "time_limits.json"

Saved = Mapping[str, list[int]]
"""Furthest saved position of each fit: whether it has finished, its steps, its epoch and its batch."""


class JobProgress:
    """Counts jobs that meet their time limit without saving new progress, so that a run is not started forever.

    Steps that were not saved are repeated by the next job, and are no progress.

    Args:
        home: Run directory of the command.
        max_restarts: Jobs in a row without progress, after the first one.
        print_line: Receives messages for the user.

    """

    def __init__(self, home: Path, max_restarts: int, print_line: Callable[[str], None]) -> None:
        self._home, self._max_restarts, self._print_line = home, max_restarts, print_line
        self._earlier: tuple[Saved, int] | None = None
        self._reported = 0

    def may_continue(self, trainings: Trainings) -> bool:
        """Return whether another job may continue after the time limit of this one, which is counted once.

        Args:
            trainings: State of the trainings of the command.

        """
        if self._earlier is None:  # what this job has found
            self._earlier = _read(self._home)
        known, times = self._earlier
        saved = saved_positions(trainings)
        is_new = any(position > known.get(key, []) for key, position in saved.items())
        count = 1 if is_new else times + 1
        furthest = {key: max(saved.get(key, []), known.get(key, [])) for key in {**known, **saved}}
        with suppress(OSError):  # then it is not known in the next job
            write_json(self._home / FILE, {"saved": furthest, "times": count})
        if not is_new and count != self._reported:
            self._reported = count
            self._report(count)
        return count <= self._max_restarts + 1

    def _report(self, count: int) -> None:
        most = self._max_restarts + 1
        if count > most:
            self._print_line(
                f"Gave up after {count} jobs that met their time limit without saving a new step. Use a longer time "
                "limit, or a signal closer to it, or save the training more often."
            )
            return
        self._print_line(
            f"No new step was saved before the time limit of the job ({count} of {most} jobs in a row). The next job "
            "repeats the steps since the last saved state."
        )


def saved_positions(trainings: Trainings) -> dict[str, list[int]]:
    """Return the furthest position of each fit from which another process can continue.

    The first step of a process counts as saved: a script may continue from checkpoints of its own.

    Args:
        trainings: State of the trainings of a command.

    """
    found: dict[str, list[int]] = {}
    for path, history in trainings.histories.items():
        for event in history.events:
            if event.node_rank or not isinstance(event, (CheckpointSaved, Finished, Started)):
                continue
            key, step = f"{path.name}/{event.fit or 0}", event.global_step or 0
            known = found.get(key, [0, 0, 0, 0])
            is_finished = int(isinstance(event, Finished) or known[0])
            position = event.position or [] if isinstance(event, CheckpointSaved) else []
            found[key] = [is_finished, *max(known[1:], [step, *position, 0, 0][:3])]
    return {key: position for key, position in found.items() if any(position)}


def _read(home: Path) -> tuple[Saved, int]:
    """Return the saved positions and the count of the earlier jobs; nothing if the record is damaged."""
    known: Any = None
    with suppress(OSError, UnreadableFileError):
        known = read_json(home / FILE)
    saved, times = (known.get("saved"), known.get("times")) if isinstance(known, dict) else (None, None)
    if not isinstance(saved, dict) or type(times) is not int or not all(map(_is_position, saved.values())):
        return {}, 0
    return saved, times


def _is_position(value: object) -> bool:
    return isinstance(value, list) and all(type(one) is int for one in value)
