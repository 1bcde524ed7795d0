"""``lightning-green run``, which starts a command again on this machine."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from typing import ClassVar

from lightning_green.ledger.run_directory import SUPERVISED_VARIABLE
from lightning_green.supervisor.launchers.launcher import Launcher

STARTED_VARIABLE = "LIGHTNING_GREEN_STARTED"
"""Time at which the supervisor has started the command, in seconds since the epoch."""
ALLOCATION_VARIABLE = "LIGHTNING_GREEN_ALLOCATION"
"""What keeps the devices of the supervisor allocated after an exit of the training; empty if nothing does."""
RELEASES_VARIABLE = "LIGHTNING_GREEN_RELEASES"
"""Name of the launcher with which the supervisor releases the machine; not set if it keeps the machine."""


class LocalLauncher(Launcher):
    """The supervisor ``lightning-green run``, detected by the variable ``LIGHTNING_GREEN_SUPERVISED``.

    Examples:
        >>> LocalLauncher.detect({"LIGHTNING_GREEN_SUPERVISED": "4711"})
        True

    """

    name: ClassVar[str] = "lightning-green run"
    resumes_planned_exits: ClassVar[bool] = True

    @classmethod
    def detect(cls, environment: Mapping[str, str] = os.environ) -> bool:
        """Return whether a supervisor has started this process."""
        return bool(environment.get(SUPERVISED_VARIABLE))


def command_started_at(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return the time at which the supervisor has started the command, in seconds since the epoch; None without one.

    Examples:
        >>> command_started_at({"LIGHTNING_GREEN_STARTED": "1714521600.5"})
        1714521600.5

    """
    try:
        started = float(environment.get(STARTED_VARIABLE, ""))
    except ValueError:
        return None
    return started if math.isfinite(started) else None


def kept_allocation(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return what keeps the devices allocated while the supervisor waits after an exit, or None.

    Inside a SLURM job or a Kubernetes pod the supervisor keeps the whole allocation. If it runs outside and the command
    is ``srun``, an exit releases the nodes.

    Args:
        environment: Environment variables of the supervisor, or of a training process.

    Examples:
        >>> kept_allocation({"LIGHTNING_GREEN_SUPERVISED": "1", "SLURM_JOB_ID": "7"})
        'SLURM job 7'
        >>> kept_allocation({"SLURM_JOB_ID": "7"})  # without a supervisor, an exit ends the job

    """
    if not LocalLauncher.detect(environment):
        return None
    if ALLOCATION_VARIABLE in environment:
        return environment[ALLOCATION_VARIABLE] or None
    return allocation(environment)


def current_allocation(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the allocation that the supervisor of this training process has at the moment, or None.

    Unlike ``kept_allocation``, it includes one that the next exit is meant to release.

    Examples:
        >>> current_allocation({"LIGHTNING_GREEN_RELEASES": "SLURM", "SLURM_JOB_ID": "7"})
        'SLURM job 7'

    """
    return allocation(environment) if environment.get(RELEASES_VARIABLE) else kept_allocation(environment)


def allocation(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the allocation that this process is part of, or None. A requeued job has another allocation."""
    if job := environment.get("SLURM_JOB_ID"):
        requeues = environment.get("SLURM_RESTART_COUNT", "0")
        return f"SLURM job {job}" + (f" (requeue {requeues})" if requeues != "0" else "")
    if environment.get("KUBERNETES_SERVICE_HOST"):
        return f"Kubernetes pod {environment.get('HOSTNAME') or platform.node()}"
    return None
