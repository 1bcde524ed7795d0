"""Launchers: programs that start a training process, and their treatment of planned exits.

A new launcher is one file with a subclass of ``Launcher`` and one entry in ``detection.LAUNCHERS``. One that releases
its machine is also a choice of ``choose_launcher`` and of ``run --launcher``.
"""

from lightning_green.supervisor.launchers.detection import (
    choose_launcher,
    detect_launchers,
    limit_signal,
    requeue,
    requeued,
    who_restarts,
)
from lightning_green.supervisor.launchers.kubernetes import KubernetesLauncher
from lightning_green.supervisor.launchers.launcher import RELEASED_EXIT_CODE, Launcher, Release
from lightning_green.supervisor.launchers.local import (
    LocalLauncher,
    command_started_at,
    current_allocation,
    kept_allocation,
)
from lightning_green.supervisor.launchers.planned_exit import PAUSED_EXIT_CODE, RunPausedExit, paused_exit_code
from lightning_green.supervisor.launchers.slurm import SLURMLauncher
from lightning_green.supervisor.launchers.slurm_resubmission import RESUBMITTED_VARIABLE
from lightning_green.supervisor.launchers.torchelastic import TorchElasticLauncher

__all__ = [
    "PAUSED_EXIT_CODE",
    "RELEASED_EXIT_CODE",
    "RESUBMITTED_VARIABLE",
    "KubernetesLauncher",
    "Launcher",
    "LocalLauncher",
    "Release",
    "RunPausedExit",
    "SLURMLauncher",
    "TorchElasticLauncher",
    "choose_launcher",
    "command_started_at",
    "current_allocation",
    "detect_launchers",
    "kept_allocation",
    "limit_signal",
    "paused_exit_code",
    "requeue",
    "requeued",
    "who_restarts",
]
