"""The exception and the exit code of a planned exit."""

from __future__ import annotations

import os
from collections.abc import Mapping

from lightning_green.supervisor.launchers.detection import detect_launchers

PAUSED_EXIT_CODE = 75
"""``EX_TEMPFAIL`` of ``sysexits.h``: temporary failure, try again later."""


class RunPausedExit(SystemExit):
    """Raised by ``trainer.fit`` for a planned exit: the training state is saved, and the run continues later.

    It is a ``SystemExit`` with exit code 75 (0 on ranks other than 0, and under ``torchrun``). Lightning calls the
    ``teardown`` hooks and no ``on_exception``, and no logger is finalized as failed. Code around ``fit`` that catches
    every exception should let this one pass.

    Examples:
        ```python
        from lightning_green import RunPausedExit

        try:
            trainer.fit(model, data)
        except RunPausedExit:
            raise
        except BaseException as error:
            send_mail(f"Training failed: {error}")
            raise
        ```

    """


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
