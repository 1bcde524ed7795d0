"""The exception and the exit code of a planned exit."""

from __future__ import annotations

import os
from collections.abc import Mapping

from lightning_green.supervisor.launchers.detection import detect_launchers

PAUSED_EXIT_CODE = 75
"""``EX_TEMPFAIL`` of ``sysexits.h``: temporary failure, try again later."""


class RunPausedExit(SystemExit):
    """Raised at a batch boundary to exit until a planned time. The training state is saved before."""


def paused_exit_code(global_rank: int, environment: Mapping[str, str] = os.environ) -> int:
    """Return the exit code of a process for a planned exit.

    The code is 75 on rank 0 and 0 on all other ranks, because Lightning kills rank 0 when another rank fails. Under
    torchrun it is 0 on all ranks, and only the ledger records the pause.

    Args:
        global_rank: Rank of the process.
        environment: Environment variables of the process.

    Examples:
        >>> paused_exit_code(0, {}), paused_exit_code(1, {})
        (75, 0)

    """
    accepted = all(launcher.accepts_exit_codes for launcher in detect_launchers(environment))
    return PAUSED_EXIT_CODE if global_rank == 0 and accepted else 0
