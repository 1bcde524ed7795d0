"""The contract of a launcher."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

RELEASED_EXIT_CODE = 75
"""Exit code of a supervisor that another job continues: ``EX_TEMPFAIL``, as that of a planned exit."""
AWAITING_EXIT_CODE = 69
"""``EX_UNAVAILABLE``: a training waits for a person. Batch systems may start a job that ends with 75 again at once."""
SHORTEST_RELEASE = timedelta(seconds=10)
"""Shortest wait for which a machine is released: a batch system takes as long to start a job."""
END_SECONDS = 1800.0
"""How long a launcher that ends a process may take for that."""


@dataclass(frozen=True)
class Release:
    """A launcher has accepted to start the command again later.

    Args:
        by: What starts it, for messages, such as ``"SLURM job 7"``.
        exit_code: Exit code with which this process has to end; None if the launcher ends it, and an exit by itself
            would disturb that.

    """

    by: str
    exit_code: int | None = None

    def end(self, seconds: float = END_SECONDS) -> int:
        """Wait for the end of this process, if the launcher ends it; return the exit code.

        Args:
            seconds: How long to wait at most.

        """
        if self.exit_code is None:
            time.sleep(seconds)
        return RELEASED_EXIT_CODE if self.exit_code is None else self.exit_code


class Launcher(ABC):
    """A program that starts training processes.

    Several launchers can be active at the same time, such as ``lightning-green run -- torchrun`` in a SLURM
    job.

    The supervisor uses one of them to wait. One that ``can_release`` gives the machine back during the wait: it
    implements ``release_until``, and ``eligible_at`` and ``ends_at`` as far as it knows them. Every other launcher
    keeps the machine, and the supervisor waits in its own process.

    Args:
        environment: Environment variables of the training process.

    Attributes:
        name: Name of the launcher in messages.
        resumes_planned_exits: Whether it starts the command again when a planned pause is over.
        accepts_exit_codes: Whether a process may end with a nonzero exit code without counting as failed.
        can_release: Whether it implements ``release_until``, and can release this machine as far as is known. A refusal
            for a lasting reason sets it to False.
        created_at: Time from which this process has used the machine, in seconds since the epoch.
        refused_at: Time of the last refused release in seconds since the epoch, or None.

    """

    name: ClassVar[str]
    resumes_planned_exits: ClassVar[bool] = False
    accepts_exit_codes: ClassVar[bool] = True
    can_release: bool = False
    refused_at: float | None = None

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self.environment, self.created_at = environment, time.time()

    @classmethod
    @abstractmethod
    def detect(cls, environment: Mapping[str, str] = os.environ) -> bool:
        """Return whether this launcher has started the process with these environment variables."""

    @property
    def has_restarted(self) -> bool:
        """Whether this launcher has started the same job, or its processes, before."""
        return False

    def release(self, begin: datetime, print_line: Callable[[str], None]) -> Release | None:
        """Call ``release_until``, and note a refusal."""
        release = self.release_until(begin, print_line)
        self.refused_at = time.time() if release is None else None
        return release

    def release_until(self, begin: datetime, print_line: Callable[[str], None]) -> Release | None:
        """Give the machine back, and have the same command started again.

        The caller has ended the training and has unlocked the run directory, which the next start may use on another
        machine. The next start may come at the wrong time: it reads the ledger, and releases the machine again if the
        planned time is still ahead.

        Args:
            begin: Earliest time of the next start; a time that is over for as soon as possible.
            print_line: Receives messages for the user, one line each.

        Returns:
            The release, whose ``end`` the caller has to call; None if the machine is kept. Then a message contains the
            reason, nothing has changed, and the caller has to wait itself. It tries again later while ``can_release``
            is True.

        """
        return None

    @property
    def shortest_release(self) -> timedelta:
        """Shortest wait for which the machine is released."""
        return SHORTEST_RELEASE

    def eligible_at(self) -> float | None:
        """Return the time from which this start has waited for its machine, in seconds since the epoch, or None."""
        return None

    def ends_at(self) -> float | None:
        """Return the time at which this launcher ends the process, in seconds since the epoch, or None."""
        return None

    def prepare(self, print_line: Callable[[str], None]) -> None:  # noqa: B027  (a hook)
        """Prepare this process, before its first start of the command; print what would disturb a release."""
