"""Signals that end a command together with the processes that it has started."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def ended_by_signals(and_interrupt: bool = False) -> Iterator[None]:
    """Let the first SIGTERM or SIGHUP end a command as Ctrl-C does, so that it ends what it has started.

    Args:
        and_interrupt: Whether SIGINT does so although it is ignored: a shell script starts `python train.py &` so.

    """
    numbers = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is signal.SIG_DFL]
    if and_interrupt or signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)

    def end(number: int, frame: Any) -> None:
        for one in numbers:  # a second signal would interrupt the cleanup
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {one: signal.signal(one, end) for one in numbers}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
