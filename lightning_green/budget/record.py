"""The record of one run in the directory of a budget."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from lightning_green.budget.usage import Usage, ledger_size, read_run_usage
from lightning_green.ledger.event_fields import read_int, read_text
from lightning_green.ledger.run_directory import is_alive, read_record
from lightning_green.planning.prices import PriceSeries
from lightning_green.report.run_state import EXITED, KILLED
from lightning_green.utilities.files import write_json
from lightning_green.utilities.reading import read_json

VERSION = 1
RUNNING = "started"
"""State of a run that is training, by its last record."""
_MAX_BYTES = 65536
_RUN_ID = re.compile(r"[0-9a-zA-Z_-]{1,64}")


@dataclass(frozen=True)
class RunRecord:
    """What one run has used up to its last heartbeat.

    Args:
        run_id: Id of the run.
        run_dir: Its directory; empty if it has none.
        usage: What it has used.
        state: Last event that changed its state, such as ``"started"`` or ``"finished"``.
        ledger_bytes: Size of the ledgers that the usage was computed from.

    """

    run_id: str
    run_dir: str = ""
    usage: Usage = field(default_factory=Usage)
    state: str = RUNNING
    ledger_bytes: int = 0

    def write(self, folder: Path) -> None:
        """Write the record atomically.

        Raises:
            OSError: If it cannot be written.

        """
        write_json(folder / f"{self.run_id}.json", {"version": VERSION, **asdict(self)}, durable=False)

    @classmethod
    def from_file(cls, path: Path) -> RunRecord:
        """Return the record in a file.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it is damaged or of another version; the message contains the reason.

        """
        found = read_json(path, _MAX_BYTES)
        if not isinstance(found, Mapping) or found.get("version") != VERSION:
            raise ValueError("it was written by another version of Lightning Green")
        if found.get("run_id") != path.stem or not _RUN_ID.fullmatch(path.stem):
            raise ValueError("its run id is not that of its name")
        if not isinstance(found.get("usage"), Mapping):
            raise ValueError("`usage` should be an object")
        return cls(
            path.stem,
            read_text(found.get("run_dir")),
            Usage.from_json(found["usage"]),
            read_text(found.get("state")),
            read_int(found.get("ledger_bytes")),
        )

    @property
    def state_name(self) -> str:
        """State of the run, as in ``lightning-green runs``; ``"unknown"`` if its directory cannot be seen from here."""
        if self.state != RUNNING:
            return EXITED if self.state == "paused" else self.state
        path = Path(self.run_dir)
        if not self.run_dir or not path.is_dir():
            return "unknown"
        return "running" if is_alive(path) else KILLED

    def up_to_date(self, prices: PriceSeries | None) -> RunRecord:
        """Return the record of a run that no process continues, as of its ledger.

        A killed run has used energy after its last heartbeat, and one that has ended has recorded its end. The record
        is returned as it is if its run directory cannot be read here, contains another run, or is in use.

        Args:
            prices: Electricity prices of the additional energy; None if they are unknown. The cost in the record is
                kept.

        """
        path = Path(self.run_dir)
        try:
            if not self.run_dir or ledger_size(path) <= self.ledger_bytes:
                return self
            if is_alive(path) or read_record(path).get("run_id") != self.run_id:
                return self
            size, read = ledger_size(path), read_run_usage(path, prices, self.usage)
        except (OSError, ValueError):
            return self
        usage = read.read(has_ended=True)
        return replace(self, usage=usage, state=read.state or self.state, ledger_bytes=size)
