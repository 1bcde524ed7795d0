"""Output of tables: colors in a terminal, plain text in a pipe."""

from __future__ import annotations

import os

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from lightning_green.utilities.text import printable

_PIPE_COLUMNS = 1000
"""Width of a pipe: lines are not broken."""


def make_console() -> Console:
    """Return a console on stdout. Its text is never interpreted as markup, and a pipe gets no escape sequences."""
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_COLUMNS
    return console


def show(console: Console, content: RenderableType) -> None:
    """Print a table or text. In a pipe, no line has spaces at its end."""
    if console.is_terminal:
        console.print(content)
        return
    with console.capture() as captured:
        console.print(content, soft_wrap=isinstance(content, Text))
    typer.echo("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def cell(text: object, style: str = "") -> Text:
    """Return a text of a record, such as a path, for one line of a table."""
    return Text(one_line(text), style)


def one_line(text: object) -> str:
    """Return a text in one line without control characters."""
    return " ".join(printable(str(text)).split())
