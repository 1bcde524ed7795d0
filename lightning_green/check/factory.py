"""The entry point through which Lightning adds callbacks of this package to every Trainer of a script."""

from __future__ import annotations

import os
from typing import Any

from lightning_green.check.job import JOB_VARIABLE

SETTING_VARIABLE = "LIGHTNING_GREEN"


def callbacks() -> list[Any]:
    """Return the callbacks of ``LIGHTNING_GREEN``, and the probe in a process of ``lightning-green check``.

    Without these variables there are none, and nothing is imported.

    Raises:
        ValueError: If the value of ``LIGHTNING_GREEN``, its file or one of its callbacks is wrong.
        ModuleNotFoundError: If its file needs a package that is not installed.

    """
    found: list[Any] = []
    if os.environ.get(SETTING_VARIABLE, "") not in ("", "0"):
        from lightning_green.callbacks._from_environment import callbacks_from_environment

        found += callbacks_from_environment()
    if os.environ.get(JOB_VARIABLE):
        from lightning_green.check.probe import Probe  # imports Lightning's callbacks

        found.append(Probe())
    return found
