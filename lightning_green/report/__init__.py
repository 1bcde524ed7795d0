"""Reports of a run from its ledger: text and figures."""

from lightning_green.report.block import totals_block
from lightning_green.report.run_state import RunState
from lightning_green.report.run_status import (
    ComponentEnergy,
    Emissions,
    FitStatus,
    RunStatus,
    SourceEmissions,
    read_run_status,
)
from lightning_green.report.status import status_text
from lightning_green.report.timeline import timeline

__all__ = [
    "ComponentEnergy",
    "Emissions",
    "FitStatus",
    "RunState",
    "RunStatus",
    "SourceEmissions",
    "read_run_status",
    "status_text",
    "timeline",
    "totals_block",
]
