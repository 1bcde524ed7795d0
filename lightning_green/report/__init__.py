"""Reports of a run from its ledger: a page, text and figures."""

from lightning_green.report.block import totals_block
from lightning_green.report.html import html_page
from lightning_green.report.run_report import RunReport, read_run_report
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
    "RunReport",
    "RunState",
    "RunStatus",
    "SourceEmissions",
    "html_page",
    "read_run_report",
    "read_run_status",
    "status_text",
    "timeline",
    "totals_block",
]
