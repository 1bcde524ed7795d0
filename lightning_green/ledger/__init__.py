"""The record of a run: append-only log, totals, history, run directory."""

from lightning_green.ledger.ledger import Ledger, read_ledger
from lightning_green.ledger.run_directory import RunFolder, RunIsAliveError
from lightning_green.ledger.totals import Totals, saving_percent, total, total_by_fit

__all__ = [
    "Ledger",
    "RunFolder",
    "RunIsAliveError",
    "Totals",
    "read_ledger",
    "saving_percent",
    "total",
    "total_by_fit",
]
