"""Who starts a run again after it has left."""

from __future__ import annotations

import os
from collections.abc import Mapping

from lightning_green.runtime.run_folder import SUPERVISED_VARIABLE

PAUSED_EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: try again later."""


def who_restarts(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return what will start this run again if it exits, recognised by what it set in the environment; None for nobody.

    Example::

        >>> who_restarts({"LIGHTNING_GREEN_SUPERVISED": "1"})
        'lightning-green run'

    """
    return "lightning-green run" if environment.get(SUPERVISED_VARIABLE) else None


def paused_exit_code(global_rank: int, environment: Mapping[str, str] = os.environ) -> int:
    """Return the code to leave with for a planned exit.

    75 on rank 0 and 0 on the others: Lightning kills rank 0 when another rank fails. torchrun takes every code but 0
    for a failure, so there it is 0 everywhere and the ledger alone tells.
    """
    under_torchrun = "TORCHELASTIC_RUN_ID" in environment
    return PAUSED_EXIT_CODE if global_rank == 0 and not under_torchrun else 0


class RunPausedExit(SystemExit):
    """Raised to leave a training at a boundary; the state is saved and the ledger knows when to go on."""
