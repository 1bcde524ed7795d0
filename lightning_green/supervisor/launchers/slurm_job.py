"""A SLURM job as ``scontrol`` describes it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

TIMEOUT_SECONDS = 60.0
KILL_WAIT_SECONDS = 30.0
_FIELD = re.compile(r"(?:^|\s)([A-Za-z][\w:/]*)=")
_UNSET = ("", "(null)", "N/A", "None", "Unknown", "UNLIMITED", "NONE")


class SLURMError(RuntimeError):
    """A command of SLURM has failed; the message is its reason in one line.

    Args:
        message: The reason.
        is_refused: Whether SLURM has answered; otherwise it is unknown what it has done.

    """

    def __init__(self, message: str, is_refused: bool) -> None:
        super().__init__(message)
        self.is_refused = is_refused


def call(words: Sequence[str], timeout: float = TIMEOUT_SECONDS, environment: Mapping[str, str] | None = None) -> str:
    """Run a command of SLURM and return its output.

    Args:
        words: The command line.
        timeout: Time limit in seconds.
        environment: Environment variables; None for those of this process.

    Raises:
        SLURMError: If it fails, does not answer in time, or does not exist.

    """
    variables = {**(os.environ if environment is None else environment), "SLURM_TIME_FORMAT": "standard"}
    try:
        done = subprocess.run(
            list(words), check=True, capture_output=True, text=True, timeout=timeout, env=variables, errors="replace"
        )
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in str(error.stderr).splitlines() if line.strip()]
        raise SLURMError(" ".join(lines) or f"exit code {error.returncode}", is_refused=True) from error
    except subprocess.TimeoutExpired as error:
        raise SLURMError(f"`{words[0]}` has not answered within {timeout:.0f} s", is_refused=False) from error
    except OSError as error:
        raise SLURMError(f"`{words[0]}` cannot be started: {error.strerror}", is_refused=False) from error
    return done.stdout


@dataclass(frozen=True)
class SLURMJob:
    """The description of one job or one task of a job array.

    Args:
        fields: Values of ``scontrol show job`` by name, without those that are not set.

    """

    fields: Mapping[str, str]

    @classmethod
    def query(cls, job_id: str, timeout: float = TIMEOUT_SECONDS) -> SLURMJob:
        """Ask SLURM for a job.

        Raises:
            SLURMError: If SLURM does not answer, or does not know the job.

        """
        return cls.parse(call(["scontrol", "show", "job", job_id], timeout))

    @classmethod
    def parse(cls, text: str) -> SLURMJob:
        r"""Return the job that ``scontrol show job`` describes.

        Examples:
            >>> job = SLURMJob.parse("JobId=7 JobName=a b\n   Requeue=1 BatchFlag=1 JobState=RUNNING QOS=(null)")
            >>> job.may_requeue, job.is_batch, job.fields["JobName"], "QOS" in job.fields
            (True, True, 'a b', False)

        """
        fields: dict[str, str] = {}
        for line in text.splitlines():
            found = list(_FIELD.finditer(line))
            if line.strip().startswith("Command="):  # it may contain anything
                found = found[:1]
            ends = [*(one.start() for one in found), len(line)][1:]
            for one, end in zip(found, ends, strict=True):
                value = line[one.end() : end].strip()
                if value not in _UNSET:
                    fields.setdefault(one[1], value)
        return cls(fields)

    @property
    def is_running(self) -> bool:
        """Whether it runs and has not been canceled."""
        return self.fields.get("JobState") == "RUNNING"

    @property
    def is_batch(self) -> bool:
        """Whether ``sbatch`` has submitted it. Interactive jobs cannot be requeued."""
        return self.fields.get("BatchFlag", "0") != "0"

    @property
    def may_requeue(self) -> bool:
        """Whether SLURM may requeue it."""
        return self.fields.get("Requeue") == "1"

    def time(self, name: str) -> float | None:
        """Return a time such as ``"EndTime"`` in seconds since the epoch, or None."""
        with suppress(ValueError, OverflowError):
            return time.mktime(time.strptime(self.fields.get(name, ""), "%Y-%m-%dT%H:%M:%S"))
        return None


def kill_wait(timeout: float = TIMEOUT_SECONDS) -> float:
    """Return the seconds between SIGTERM and SIGKILL at the end of a job; SLURM's default if it does not answer."""
    with suppress(SLURMError):
        found = re.search(r"^KillWait\s*=\s*(\d+)", call(["scontrol", "show", "config"], timeout), re.MULTILINE)
        return KILL_WAIT_SECONDS if found is None else float(found[1])
    return KILL_WAIT_SECONDS


def start_time(begin: float) -> str:
    """Return a time for ``StartTime=`` and ``--begin=``, in seconds from now: no time zone is involved.

    Args:
        begin: The time in seconds since the epoch.

    """
    seconds = round(begin - time.time())
    return f"now+{seconds}" if seconds > 0 else "now"
