"""The launchers of this process, detected by their environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping

from lightning_green.supervisor.launchers.launcher import Launcher
from lightning_green.supervisor.launchers.local import LocalLauncher
from lightning_green.supervisor.launchers.slurm import SLURMLauncher
from lightning_green.supervisor.launchers.torchelastic import TorchElasticLauncher

LAUNCHERS: tuple[type[Launcher], ...] = (LocalLauncher, SLURMLauncher, TorchElasticLauncher)
"""All launchers, in the order of detection."""


def detect_launchers(environment: Mapping[str, str] = os.environ) -> list[Launcher]:
    """Return all launchers that have a part in starting this process.

    Examples:
        >>> detected = detect_launchers({"LIGHTNING_GREEN_SUPERVISED": "4711", "TORCHELASTIC_RUN_ID": "none"})
        >>> [launcher.name for launcher in detected]
        ['lightning-green run', 'torchrun']

    """
    return [launcher(environment) for launcher in LAUNCHERS if launcher.detect(environment)]


def who_restarts(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the name of the launcher that starts this run again after a planned exit, or None.

    Examples:
        >>> who_restarts({"LIGHTNING_GREEN_SUPERVISED": "1"})
        'lightning-green run'

    """
    launchers = (launcher for launcher in detect_launchers(environment) if launcher.resumes_planned_exits)
    return next((launcher.name for launcher in launchers), None)


def requeue(environment: Mapping[str, str] = os.environ) -> None:
    """Requeue this SLURM job. A failure only logs a warning because the training state is already saved."""
    SLURMLauncher(environment).requeue()


def requeued(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a launcher has started this job, or its processes, before.

    Examples:
        >>> requeued({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"})
        True

    """
    return any(launcher.has_restarted for launcher in detect_launchers(environment))
