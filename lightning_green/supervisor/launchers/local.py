"""``lightning-green run``, which starts a command again on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

from lightning_green.ledger.run_directory import SUPERVISED_VARIABLE
from lightning_green.supervisor.launchers.launcher import Launcher


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
