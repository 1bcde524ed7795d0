"""The record of a run: typed events, append-only log, totals, baseline, history, run directory."""

from lightning_green.ledger.account import total
from lightning_green.ledger.baseline import Baseline, run_now_baselines, saving_percent
from lightning_green.ledger.event_reader import event_from_json
from lightning_green.ledger.events import Event, StateEvent
from lightning_green.ledger.history import RunHistory, read_history
from lightning_green.ledger.ledger import Ledger, read_ledger
from lightning_green.ledger.measurement import Intensity, Measurement
from lightning_green.ledger.run_directory import RunDirectory, RunIsAliveError
from lightning_green.ledger.totals import Totals

__all__ = [
    "Baseline",
    "Event",
    "Intensity",
    "Ledger",
    "Measurement",
    "RunDirectory",
    "RunHistory",
    "RunIsAliveError",
    "StateEvent",
    "Totals",
    "event_from_json",
    "read_history",
    "read_ledger",
    "run_now_baselines",
    "saving_percent",
    "total",
]
