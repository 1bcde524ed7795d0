"""Who starts a run again after it has left."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping

from lightning_green.ledger.run_directory import SUPERVISED_VARIABLE

log = logging.getLogger(__name__)

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


def requeue(environment: Mapping[str, str] = os.environ) -> None:
    """Have SLURM start this job again; a failure is said and harms nothing, because the state is saved."""
    job = environment.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in environment:
        job = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        why = getattr(error, "stderr", None) or error
        log.warning("The SLURM job %s could not be requeued (%s). Queue it again by hand; it continues.", job, why)


def requeued(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether SLURM has started this job before.

    Example::

        >>> requeued({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"})
        True

    """
    return int(environment.get("SLURM_RESTART_COUNT") or 0) > 0


class RunPausedExit(SystemExit):
    """Raised to leave a training at a boundary; the state is saved and the ledger knows when to go on."""
