"""Files of a resumed run that another program rewrites."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from lightning_green.ledger.run_directory import RESUME_VARIABLE

T = TypeVar("T")

ATTEMPTS, SECONDS = 6, 1.0


def while_rewritten(read: Callable[[], T]) -> T:
    """Return the result of ``read``, which is tried for five seconds under a supervisor.

    A run that resumes after hours reads its files again, and a program that downloads new values may be writing them at
    that moment. Without a supervisor somebody is present, and an error is raised at once.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If its content is invalid.

    """
    if not os.environ.get(RESUME_VARIABLE):
        return read()
    errors = retry_if_exception_type((OSError, ValueError))
    return Retrying(stop=stop_after_attempt(ATTEMPTS), wait=wait_fixed(SECONDS), retry=errors, reraise=True)(read)
