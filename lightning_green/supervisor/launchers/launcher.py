"""The contract of a launcher."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar


class Launcher(ABC):
    """A program that starts training processes.

    Several launchers can be active at the same time, such as ``lightning-green run -- torchrun`` in a SLURM
    job.

    Args:
        environment: Environment variables of the training process.

    Attributes:
        name: Name of the launcher in messages.
        resumes_planned_exits: Whether it starts the command again when a planned pause is over.
        accepts_exit_codes: Whether a process may end with a nonzero exit code without counting as failed.

    """

    name: ClassVar[str]
    resumes_planned_exits: ClassVar[bool] = False
    accepts_exit_codes: ClassVar[bool] = True

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self.environment = environment

    @classmethod
    @abstractmethod
    def detect(cls, environment: Mapping[str, str] = os.environ) -> bool:
        """Return whether this launcher has started the process with these environment variables."""

    @property
    def has_restarted(self) -> bool:
        """Whether this launcher has started the same job, or its processes, before."""
        return False
