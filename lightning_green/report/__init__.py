"""Reports of a run from its ledger: text and figures."""

from lightning_green.report.block import totals_block
from lightning_green.report.status import status_text
from lightning_green.report.timeline import timeline

__all__ = [
    "status_text",
    "timeline",
    "totals_block",
]
