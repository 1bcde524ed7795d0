"""Run directories with a ledger that is written event by event."""

from datetime import timedelta

from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.report.status import status_text
from lightning_green.utilities.clock import SimulatedClock
from tests.helpers.ledgers import make_event
from tests.helpers.traces import START


class FakeRun:
    """A run whose ledger is written event by event; each event advances the clock by one hour."""

    def __init__(self, path):
        self.folder, self.clock = RunDirectory(path), SimulatedClock(START)
        self.folder.record["clock"] = self.clock.spec()
        self.folder.save()
        self.clock.bind(path)
        self.ledger, self.joules = Ledger(path, self.clock, 1, node="a"), 0.0

    def add(self, event, step, state="running", **fields):
        joules = {"cpu": {"value": self.joules / 4, "quality": "modelled"}}
        joules["gpu"] = {"value": self.joules * 3 / 4, "quality": "measured"}
        intensity = {"value": 400.0, "kind": "average/lifecycle"}
        common = {"state": state, "phase": "training", "joules": joules, "intensity": intensity, "reason": ""}
        self.ledger.append(make_event(event, global_step=step, **{**common, **fields}))
        self.clock.sleep(3600)
        self.joules += 0.3 * 3.6e6
        return self

    def lines(self):
        return dict(line.split(None, 1) for line in status_text(RunDirectory(self.folder.path)).splitlines())


def at(hours):
    """Return a time in hours after the first event."""
    return (START + timedelta(hours=hours)).isoformat()
