"""torchrun, which is TorchElastic."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

from lightning_green.supervisor.launchers.launcher import Launcher


class TorchElasticLauncher(Launcher):
    """torchrun. It treats every exit code except 0 as a failure of the worker.

    Examples:
        >>> TorchElasticLauncher.detect({"TORCHELASTIC_RUN_ID": "none"})
        True

    """

    name: ClassVar[str] = "torchrun"
    accepts_exit_codes: ClassVar[bool] = False

    @property
    def has_restarted(self) -> bool:
        """Whether torchrun has started its workers again, as with ``--max-restarts``."""
        return int(self.environment.get("TORCHELASTIC_RESTART_COUNT") or 0) > 0

    @classmethod
    def detect(cls, environment: Mapping[str, str] = os.environ) -> bool:
        """Return whether torchrun has started this process."""
        return "TORCHELASTIC_RUN_ID" in environment
