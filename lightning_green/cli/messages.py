"""Messages and exit codes of the commands."""

from __future__ import annotations

from typing import NoReturn

import typer

BAD_USAGE = 2


def print_line(line: str) -> None:
    """Print a line of the command itself to stderr."""
    typer.echo(f"lightning-green: {line}", err=True)


def fail(line: str, code: int = BAD_USAGE) -> NoReturn:
    """Print a line to stderr and exit.

    Args:
        line: What is wrong and what to do.
        code: Exit code.

    """
    print_line(line)
    raise typer.Exit(code)
