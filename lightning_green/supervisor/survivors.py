"""Processes of a training that are still running although their command has ended.

If the command is killed, the ranks that it started may train on: those of ``torchrun`` without their agent, and those
of a first rank that has died. Another start would train next to them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from lightning_green.ledger.run_directory import RANKS_FILE, RUN_DIR_VARIABLE

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 10.0
"""How long the processes of a command may take to end by themselves after it."""
STOP_SECONDS = 300.0
"""How long a training may take to save its state and to exit after a signal. Then it is killed."""
KILL_SECONDS = 10.0


def running_ranks(home: Path) -> list[int]:
    """Return the processes of this machine that take part in a training of a command; none without ``/proc``.

    Their environment names the run directory, and they keep a file in it open. The files in the directory name no
    process: they are not trusted.

    Args:
        home: Run directory of the command.

    """
    path, variable = os.path.realpath(home / RANKS_FILE), f"{RUN_DIR_VARIABLE}={home}"
    return [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if int(process.name) != os.getpid() and has_variable(process, variable) and _has_open(process, path)
    ]


def wait_for_ranks(
    home: Path, seconds: float, beat: Callable[[], None], is_over: Callable[[], bool] = lambda: False
) -> list[int]:
    """Wait for the end of the processes of a training; return those that are still running.

    Args:
        home: Run directory of the command.
        seconds: How long to wait.
        beat: Called several times a second.
        is_over: Returns whether to wait no longer.

    """
    limit = time.monotonic() + seconds
    while (ranks := running_ranks(home)) and time.monotonic() < limit and not is_over():
        beat()
        time.sleep(POLL_SECONDS)
    return ranks


def end_ranks(
    home: Path, beat: Callable[[], None], print_line: Callable[[str], None], stop_seconds: float = STOP_SECONDS
) -> None:
    """Stop the processes of a training that are still running: they save their state and exit, or they are killed.

    Args:
        home: Run directory of the command.
        beat: Called several times a second.
        print_line: Receives messages for the user.
        stop_seconds: How long they may take to save their state.

    """
    ranks = running_ranks(home)
    if not ranks:
        return
    print_line(
        f"The command has ended, and {_count(ranks)} still running: {', '.join(map(str, ranks))}. "
        "Asking to save and to exit."
    )
    send(ranks, signal.SIGTERM)
    send(ranks, signal.SIGCONT)  # a stopped process handles no signal
    left = wait_for_ranks(home, stop_seconds, beat)
    if left:
        print_line(f"{_count(left)} still running after {stop_seconds:.0f} s. Killing.")
        send(left, signal.SIGKILL)
        wait_for_ranks(home, KILL_SECONDS, beat)


def _count(ranks: list[int]) -> str:
    return "1 process of its training is" if len(ranks) == 1 else f"{len(ranks)} processes of its training are"


def send(processes: Iterable[int], number: int) -> None:
    """Send a signal to those of these processes that have not ended."""
    for pid in processes:
        with suppress(OSError):  # it has ended
            os.kill(pid, number)


def has_variable(process: Path, variable: str) -> bool:
    """Return whether a process was started with an environment variable, given as ``NAME=value`` or ``NAME``."""
    try:
        variables = (process / "environ").read_bytes().split(b"\0")
    except OSError:  # of another user, or ended
        return False
    searched = variable.encode()
    return any(searched == (one if b"=" in searched else one.partition(b"=")[0]) for one in variables)


def _has_open(process: Path, path: str) -> bool:
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        return False
    return any(_target(descriptor) == path for descriptor in descriptors)


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""
