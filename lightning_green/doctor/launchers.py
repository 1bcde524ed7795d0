"""Launchers: what would restart a training that is started here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from lightning_green.doctor.finding import Finding
from lightning_green.supervisor.launchers.detection import detect_launchers, who_restarts
from lightning_green.supervisor.launchers.kubernetes import KubernetesLauncher
from lightning_green.supervisor.launchers.kubernetes_api import KubernetesError
from lightning_green.supervisor.launchers.local import allocation
from lightning_green.supervisor.launchers.slurm import SLURMLauncher
from lightning_green.supervisor.launchers.slurm_job import SLURMError, SLURMJob

SECTION = "Restarts"
_TIMEOUT_SECONDS = 5.0
_START = "lightning-green run -- python train.py"


def examine_launchers(environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield what restarts a training after a planned exit, and what keeps its devices allocated meanwhile.

    Args:
        environ: Environment variables.

    """
    names = [launcher.name for launcher in detect_launchers(environ)]
    restarter = who_restarts(environ)
    if restarter is not None:
        yield Finding(SECTION, "restart", "ok", f"{restarter} restarts a training after a planned exit")
    else:
        here = f"{' and '.join(names)} does not restart" if names else "nothing restarts"
        text = f"{here} a training after a planned exit, so a training pauses in process only"
        yield Finding(SECTION, "restart", "limited", text, f"start the training with: {_START}")
    kept = allocation(environ)
    if kept is not None:
        text = f"{kept} keeps the devices during an exit, so an exit saves less"
        remedy = "start lightning-green run outside of the allocation, for example: lightning-green run -- srun ..."
        if environ.get("SLURM_JOB_ID"):
            remedy = "release the nodes in the batch script: exec lightning-green run --launcher slurm -- srun ..."
        elif KubernetesLauncher.detect(environ):
            remedy = "release the pod: lightning-green run --launcher kubernetes -- ..."
        yield Finding(SECTION, "allocation", "limited", text, remedy)
    if environ.get("SLURM_JOB_ID"):
        yield _examine_job(SLURMLauncher(environ))
    elif KubernetesLauncher.detect(environ):
        yield _examine_pod(KubernetesLauncher(environ))


def _examine_pod(launcher: KubernetesLauncher) -> Finding:
    """Return whether the Job of this pod can be suspended, and would be started again."""
    try:
        name, problem = launcher.examine(_TIMEOUT_SECONDS)
    except KubernetesError as error:
        text = f"{error}, so --launcher kubernetes waits in the pod"
        remedy = error.remedy or "create the Job with: lightning-green kubernetes job --help"
        return Finding(SECTION, "suspension", "no", text, remedy.rstrip("."))
    if problem is None:
        return Finding(SECTION, "suspension", "ok", f"Job {name} may be suspended, and a waker starts it again")
    reason, _, remedy = problem.partition(". ")
    remedy = remedy.rstrip(".") or "use a Job of its own: lightning-green kubernetes job --help"
    text = f"Job {name} would not be suspended: {reason.rstrip('.')}"
    return Finding(SECTION, "suspension", "limited", text, remedy)


def _examine_job(launcher: SLURMLauncher) -> Finding:
    """Return whether the SLURM job of this process can be requeued, and when it ends."""
    try:
        job = SLURMJob.query(launcher.job_id, _TIMEOUT_SECONDS)
    except SLURMError as error:
        text = f"SLURM does not describe the job ({error}), so --launcher slurm waits in the allocation"
        return Finding(SECTION, "requeue", "no", text, "add scontrol to PATH, in a container too")
    limit = job.fields.get("TimeLimit")
    ends = f"; time limit {limit}" if limit else "; no time limit"
    if not job.is_batch:
        text = f"job {launcher.job_id} is interactive and cannot be requeued{ends}"
        return Finding(SECTION, "requeue", "limited", text, "submit the training with sbatch")
    if not job.may_requeue:
        text = f"job {launcher.job_id} may not be requeued, so --launcher slurm submits its script again{ends}"
        return Finding(SECTION, "requeue", "limited", text, "#SBATCH --requeue")
    return Finding(SECTION, "requeue", "ok", f"job {launcher.job_id} may be requeued{ends}")
