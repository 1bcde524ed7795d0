"""SLURM, which starts a job again after it has been requeued."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.supervisor.launchers.launcher import RELEASED_EXIT_CODE, Launcher, Release
from lightning_green.supervisor.launchers.slurm_job import SLURMError, SLURMJob, call, kill_wait, start_time
from lightning_green.supervisor.launchers.slurm_resubmission import RESUBMITTED_VARIABLE, resubmit, why_not_resubmitted
from lightning_green.utilities.processes import catches

log = logging.getLogger(__name__)

UPDATE_SECONDS = 8.0
"""Time limit for setting the begin time: SLURM ends this process 30 seconds after a requeue by default."""
UPDATES = 3
END_SECONDS = 5.0
"""Time that SLURM takes, in addition to ``KillWait``, to end a job."""
_LIMIT_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
_NOT_ALLOWED = re.compile("disabled|denied|permission|not permitted|not allowed", re.IGNORECASE)
_KEPT = "The nodes stay allocated during the wait."
_EXEC = "exec lightning-green run --launcher slurm -- ..."


class SLURMLauncher(Launcher):
    """A SLURM job or a task of a SLURM job array.

    Examples:
        >>> SLURMLauncher({"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "9"}).job_id
        '7_3'

    """

    name: ClassVar[str] = "SLURM"
    can_release = True

    @classmethod
    def detect(cls, environment: Mapping[str, str] = os.environ) -> bool:
        """Return whether SLURM has started this process."""
        return "SLURM_JOB_ID" in environment or "SLURM_RESTART_COUNT" in environment

    @property
    def has_restarted(self) -> bool:
        """Whether SLURM has started this job before, or this supervisor has submitted it."""
        return int(self.environment.get("SLURM_RESTART_COUNT") or 0) > 0 or RESUBMITTED_VARIABLE in self.environment

    @property
    def job_id(self) -> str:
        """Job id for ``scontrol``: ``<array job>_<task>`` for a task of a job array.

        ``SLURM_JOB_ID`` of the last task is the id of the whole array, and a requeue of it ends every task.
        """
        if "SLURM_ARRAY_JOB_ID" in self.environment:
            return f"{self.environment['SLURM_ARRAY_JOB_ID']}_{self.environment['SLURM_ARRAY_TASK_ID']}"
        return self.environment.get("SLURM_JOB_ID", "")

    def requeue(self) -> None:
        """Requeue this job. A failure only logs a warning because the training state is already saved."""
        try:
            call(["scontrol", "requeue", self.job_id])
        except SLURMError as error:
            log.warning(
                "The SLURM job %s could not be requeued (%s). Requeue it manually; training then resumes.",
                self.job_id,
                error,
            )

    # -- releasing the nodes ------------------------------------------------------------------------------------------

    @override
    def release_until(self, begin: datetime, print_line: Callable[[str], None]) -> Release | None:
        """Requeue this job with a begin time; where that is not allowed, submit its batch script again.

        After a requeue, SLURM sends SIGTERM to all processes of the job and kills them ``KillWait`` seconds later. This
        process ignores SIGTERM from before the requeue on, as do the commands that it starts. It must not end by
        itself: SLURM would then replace the begin time by one of its own, two minutes later.
        """
        try:
            job = SLURMJob.query(self.job_id)
        except SLURMError as error:
            self.can_release = shutil.which("scontrol") is not None
            print_line(f"SLURM job {self.job_id} cannot be requeued: {error}. {_KEPT}")
            return None
        if not job.is_batch:
            self.can_release = False
            print_line(f"SLURM job {self.job_id} is interactive, and SLURM requeues batch jobs only. {_KEPT}")
            return None
        if not job.is_running:  # it is being canceled or requeued by somebody else
            print_line(f"SLURM job {self.job_id} is {job.fields.get('JobState', 'ending')} and is not requeued.")
            return None
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        release = self._requeue_until(begin.timestamp(), job, print_line)
        if release is None:
            signal.signal(signal.SIGTERM, before)
        return release

    def _requeue_until(self, begin: float, job: SLURMJob, print_line: Callable[[str], None]) -> Release | None:
        least = self.shortest_release.total_seconds()  # before the requeue, after which this process is short of time
        if not job.may_requeue:
            return self._resubmit(begin, job, "it was submitted with --no-requeue, or the site sets that", print_line)
        try:
            call(["scontrol", "requeue", self.job_id])
        except SLURMError as error:
            if error.is_refused and _NOT_ALLOWED.search(str(error)):
                return self._resubmit(begin, job, str(error), print_line)
            print_line(f"SLURM job {self.job_id} cannot be requeued: {error}. {_KEPT}")
            return None
        begin = max(begin, time.time() + least)
        when = datetime.fromtimestamp(begin, timezone.utc).strftime("from %Y-%m-%d %H:%M:%S UTC on")
        if (problem := self._set_begin(begin)) is not None:
            when = f"in two minutes, and then queues itself again: its begin time was not set ({problem})"
        print_line(f"SLURM job {self.job_id} is requeued, and its nodes are released. It starts again {when}.")
        return Release(f"SLURM job {self.job_id}")

    @cached_property
    @override
    def shortest_release(self) -> timedelta:
        """The time in which SLURM ends a job: a begin time that is over then is replaced by one two minutes later."""
        return timedelta(seconds=kill_wait(UPDATE_SECONDS) + END_SECONDS)

    def _set_begin(self, begin: float) -> str | None:
        """Set the begin time of the requeued job; return why that failed, or None."""
        problem = None
        for _ in range(UPDATES):
            try:
                call(["scontrol", "update", f"JobId={self.job_id}", f"StartTime={start_time(begin)}"], UPDATE_SECONDS)
                return None
            except SLURMError as error:  # noqa: PERF203  (a few times)
                problem = str(error)
        return problem

    def _resubmit(self, begin: float, job: SLURMJob, why: str, print_line: Callable[[str], None]) -> Release | None:
        if (problem := why_not_resubmitted(job)) is not None:
            self.can_release = False
            print_line(f"SLURM job {self.job_id} cannot be requeued ({why}), and {problem} {_KEPT}")
            return None
        try:
            new = resubmit(self.job_id, job, begin, self.environment)
        except (SLURMError, OSError) as error:
            print_line(
                f"SLURM job {self.job_id} cannot be requeued ({why}), and its script cannot be submitted again "
                f"({error}). {_KEPT}"
            )
            return None
        print_line(
            f"SLURM job {self.job_id} cannot be requeued ({why}). Its script was submitted again with sbatch --begin: "
            f"job {new} continues. This job ends with exit code {RELEASED_EXIT_CODE}. To keep the job id and the age "
            "priority, allow a requeue: #SBATCH --requeue"
        )
        return Release(f"SLURM job {new}", RELEASED_EXIT_CODE)

    # -- times and problems -------------------------------------------------------------------------------------------

    @override
    def eligible_at(self) -> float | None:
        return self._time("EligibleTime")

    @override
    def ends_at(self) -> float | None:
        return self._time("EndTime")

    def _time(self, name: str) -> float | None:
        try:
            return SLURMJob.query(self.job_id, UPDATE_SECONDS).time(name)
        except SLURMError:
            return None

    @override
    def prepare(self, print_line: Callable[[str], None]) -> None:
        """Survive a signal before the time limit at any time; warn if the shell of the batch script would not."""
        for number in _LIMIT_SIGNALS:
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, _survive)  # the handlers of the supervisor replace it while it runs
        shell = self.environment.get("SLURM_TASK_PID", "")
        if self.environment.get("SLURM_STEP_ID", "").isdigit() or not shell.isdigit() or int(shell) == os.getpid():
            return
        if Path(f"/proc/{shell}").exists() and not catches(int(shell), signal.SIGTERM):
            print_line(
                "The first signal of SLURM ends the shell of the batch script, and then everything in it is killed: a "
                f"training may not be saved, and a begin time may be lost. Replace the shell by this command: {_EXEC}"
            )


def _survive(number: int, frame: Any) -> None:
    """Do nothing, where the default would end the process and with it the job."""
