"""How a user continues a run that nothing restarts, in one sentence."""

from __future__ import annotations

import builtins
import os
import sys
from multiprocessing import parent_process
from pathlib import Path

from lightning_green.ledger.run_directory import RESUME_VARIABLE, RUN_DIR_VARIABLE
from lightning_green.run.identity import command_line
from lightning_green.supervisor.command import Command
from lightning_green.supervisor.launchers.detection import detect_launchers
from lightning_green.utilities.clock import CLOCK_VARIABLE
from lightning_green.utilities.redaction import shell_line


def is_interactive() -> bool:
    """Return whether this process is a notebook or an interactive interpreter, which no command starts again."""
    kernel = Path(command_line()[0]).stem.endswith("kernel_launcher")
    return kernel or hasattr(sys, "ps1") or hasattr(builtins, "__IPYTHON__")


def continue_paused(path: Path | None) -> str:
    """Return how to continue a run after a planned exit.

    Args:
        path: Run directory.

    """
    if is_interactive():
        return _in_a_new_process({RUN_DIR_VARIABLE: str(path)})
    given = [f"{name}={os.environ[name]}" for name in (RUN_DIR_VARIABLE, CLOCK_VARIABLE) if name in os.environ]
    return f"To continue, run: {shell_line([*(['env', *given] if given else []), *sys.orig_argv])}"


def continue_interrupted(path: Path | None) -> str:
    """Return how to continue a run that a signal has stopped.

    Args:
        path: Run directory.

    """
    if is_interactive():
        return _in_a_new_process({RUN_DIR_VARIABLE: str(path), RESUME_VARIABLE: "1"})
    if detect_launchers() or parent_process() is not None:  # `sys.orig_argv` is the line of a worker
        return f"The run is in {path}. To continue it, start the same command again with {RESUME_VARIABLE}=1."
    command = Command(tuple(sys.orig_argv), os.getcwd(), os.environ.get(CLOCK_VARIABLE))
    return f"To continue: {command.line(Path(str(path)))}"


def _in_a_new_process(variables: dict[str, str]) -> str:
    lines = " and ".join(f"os.environ[{name!r}] = {value!r}" for name, value in variables.items())
    return (
        "Another `fit` in this process starts from scratch. To continue this one, restart the kernel or interpreter, "
        f"set {lines} and run the same code again."
    )
