"""What a process of a check has to do: a file that the command writes and the probe reads."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

JOB_VARIABLE = "LIGHTNING_GREEN_CHECK"
"""Environment variable with the directory of the job; it is set in the processes of a check only."""

_JOB, _TRACE, _DONE = "job.json", "trace.jsonl", "done"


@dataclass(frozen=True, order=True)
class Stop:
    """A boundary at which a process of a check ends.

    Args:
        fit: Number of the fit.
        epoch: Number of the epoch.
        batch: Number of batches of the epoch that are complete; 0 for the boundary between two epochs.
        kill: Whether the state is saved at this boundary and the process killed in the validation after it, or in the
            second batch after it if there is none.

    """

    fit: int
    epoch: int
    batch: int
    kill: bool = False

    def describe(self) -> str:
        """Return where the process stops, for people."""
        fit = f", fit {self.fit}" if self.fit else ""
        if self.kill:
            saved = f"after batch {self.batch}" if self.batch else "at its start"
            return f"killed in epoch {self.epoch}, last saved {saved}{fit}"
        where = f"after batch {self.batch} of epoch {self.epoch}" if self.batch else f"before epoch {self.epoch}"
        return f"stopped {where}{fit}"


@dataclass(frozen=True)
class Job:
    """What the processes of one run of the script do.

    Args:
        directory: Directory of the job.
        stops: Where its processes stop, in order.
        epochs: Largest number of epochs of a fit.
        batches: Largest number of training batches of an epoch.

    """

    directory: Path
    stops: tuple[Stop, ...] = ()
    epochs: int = 3
    batches: int = 6

    def write(self) -> None:
        """Write the job for the processes that ``environment`` is passed to."""
        self.directory.mkdir(parents=True, exist_ok=True)
        content = {**asdict(self), "directory": None, "stops": [asdict(stop) for stop in self.stops]}
        (self.directory / _JOB).write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def of_process(cls) -> Job | None:
        """Return the job of this process; None outside a check."""
        directory = os.environ.get(JOB_VARIABLE)
        if not directory:
            return None
        content = json.loads((Path(directory) / _JOB).read_text(encoding="utf-8"))
        stops = tuple(Stop(**stop) for stop in content["stops"])
        return cls(Path(directory), stops, content["epochs"], content["batches"])

    @property
    def next_stop(self) -> Stop | None:
        """The next stop that no process has reached; None after the last one."""
        done = self._done()
        return self.stops[done] if done < len(self.stops) else None

    def reach(self) -> None:
        """Record that the next stop has been reached."""
        (self.directory / _DONE).write_text(str(self._done() + 1), encoding="utf-8")

    def _done(self) -> int:
        path = self.directory / _DONE
        return int(path.read_text(encoding="utf-8")) if path.exists() else 0

    @property
    def all_reached(self) -> bool:
        """Whether all stops have been reached."""
        return self.next_stop is None

    def append(self, record: dict[str, Any]) -> None:
        """Write a record to the trace; on disk before a kill can follow."""
        with open(self.directory / _TRACE, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def trace(self) -> list[dict[str, Any]]:
        """Return the records of all processes."""
        path = self.directory / _TRACE
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
