"""SLURM, which starts a job again after it has been requeued."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping
from typing import ClassVar

from lightning_green.supervisor.launchers.launcher import Launcher

log = logging.getLogger(__name__)

REQUEUE_TIMEOUT_SECONDS = 60.0


class SLURMLauncher(Launcher):
    """A SLURM job or a task of a SLURM job array.

    Examples:
        >>> SLURMLauncher({"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "9"}).job_id
        '7_3'

    """

    name: ClassVar[str] = "SLURM"

    @classmethod
    def detect(cls, environment: Mapping[str, str] = os.environ) -> bool:
        """Return whether SLURM has started this process."""
        return "SLURM_JOB_ID" in environment or "SLURM_RESTART_COUNT" in environment

    @property
    def has_restarted(self) -> bool:
        """Whether SLURM has started this job before."""
        return int(self.environment.get("SLURM_RESTART_COUNT") or 0) > 0

    @property
    def job_id(self) -> str:
        """Job id for ``scontrol``: ``<array job>_<task>`` for a task of a job array."""
        if "SLURM_ARRAY_JOB_ID" in self.environment:
            return f"{self.environment['SLURM_ARRAY_JOB_ID']}_{self.environment['SLURM_ARRAY_TASK_ID']}"
        return self.environment.get("SLURM_JOB_ID", "")

    def requeue(self) -> None:
        """Requeue this job. A failure only logs a warning because the training state is already saved."""
        command = ["scontrol", "requeue", self.job_id]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=REQUEUE_TIMEOUT_SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "stderr", None) or error
            log.warning(
                "The SLURM job %s could not be requeued (%s). Requeue it manually; training then resumes.",
                self.job_id,
                reason,
            )
