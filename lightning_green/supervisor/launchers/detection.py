"""The launchers of this process, detected by their environment variables."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from lightning_green.supervisor.launchers.kubernetes import KubernetesLauncher
from lightning_green.supervisor.launchers.launcher import Launcher
from lightning_green.supervisor.launchers.local import RELEASES_VARIABLE, LocalLauncher
from lightning_green.supervisor.launchers.slurm import SLURMLauncher
from lightning_green.supervisor.launchers.torchelastic import TorchElasticLauncher

LAUNCHERS: tuple[type[Launcher], ...] = (LocalLauncher, SLURMLauncher, KubernetesLauncher, TorchElasticLauncher)
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
    """Requeue this SLURM job, unless the supervisor does that.

    A failure only logs a warning because the training state is already saved.
    """
    if not environment.get(RELEASES_VARIABLE):
        SLURMLauncher(environment).requeue()


def limit_signal(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return the signal before a time limit that a training handles for the supervisor; None if it does not.

    Examples:
        >>> limit_signal({"LIGHTNING_GREEN_RELEASES": "SLURM"}) == signal.SIGUSR1
        True

    """
    return int(signal.SIGUSR1) if environment.get(RELEASES_VARIABLE) else None


def requeued(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a launcher has started this job, or its processes, before.

    Examples:
        >>> requeued({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"})
        True

    """
    return any(launcher.has_restarted for launcher in detect_launchers(environment))


def choose_launcher(name: str, environment: Mapping[str, str] = os.environ) -> Launcher:
    """Return the launcher that a supervisor waits with.

    ``"auto"`` is ``"local"``: a release ends every process of a job and runs its script from the first line, and only
    its author knows whether that is possible.

    Args:
        name: ``"auto"``, ``"local"``, ``"slurm"`` or ``"kubernetes"``.
        environment: Environment variables of the supervisor.

    Raises:
        ValueError: If this process is not part of a job of that launcher, or the name is unknown.

    Examples:
        >>> choose_launcher("slurm", {"SLURM_JOB_ID": "7"}).job_id
        '7'

    """
    if name in ("auto", "local"):
        return LocalLauncher(environment)
    if name == "kubernetes":
        if not KubernetesLauncher.detect(environment):
            raise ValueError("this process is not in a pod. Create a Job: lightning-green kubernetes job --help")
        return KubernetesLauncher(environment)
    if name != "slurm":
        raise ValueError(f"it should be auto, local, slurm or kubernetes, got {name!r}.")
    if not environment.get("SLURM_JOB_ID"):
        raise ValueError("this process is not part of a SLURM job. Put the command into a batch script for sbatch.")
    return SLURMLauncher(environment)
