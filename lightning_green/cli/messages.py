"""Messages and exit codes of the commands."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NoReturn

import typer

from lightning_green.utilities.text import printable

BAD_USAGE = 2


def print_line(line: str) -> None:
    """Print a line of the command itself to stderr, if somebody reads it: a closed terminal or pipe is no failure.

    The line may contain text of a record. Its control characters are removed.
    """
    try:
        typer.echo(printable(f"lightning-green: {line}"), err=True)
    except OSError:
        with suppress(OSError):  # Python would fail at its end to write what it still holds
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)


def fail(line: str, code: int = BAD_USAGE) -> NoReturn:
    """Print a line to stderr and exit.

    Args:
        line: What is wrong and what to do.
        code: Exit code.

    """
    print_line(line)
    raise typer.Exit(code)
