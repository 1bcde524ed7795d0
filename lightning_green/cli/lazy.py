"""A group of commands that imports a command when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typing_extensions import override

from lightning_green.cli.messages import fail

_UsageError: type[Any] = typer.BadParameter.__mro__[1]  # Typer exports it under no name of its own
_HELP_INSTEAD = "NoArgsIsHelpError"


@dataclass(frozen=True)
class LazyCommand:
    """A command that is imported when it is called.

    Args:
        name: Name on the command line.
        target: ``"module:attribute"`` of its function, or of a Typer application.
        help: First line of its help.

    """

    name: str
    target: str
    help: str

    def load(self) -> Any:
        """Import the command."""
        module, _, attribute = self.target.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            single.command(self.name)(found)
            found = single
        return typer.main.get_command(found)


class LazyGroup(TyperGroup):
    """The commands of ``lightning-green``.

    The list of commands needs no import of their modules, which takes about a second. Wrong usage is reported in the
    style of all messages, in one line.

    Attributes:
        lazy: The commands, in the order of the help.

    """

    lazy: ClassVar[Sequence[LazyCommand]] = ()

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for one in self.lazy:
            self.commands[one.name] = TyperCommand(one.name, help=one.help)

    @override
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        found = next((one for one in self.lazy if one.name == name), None)
        return name, command if found is None else found.load(), rest

    @override
    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        with _usage_errors(info_name):
            return super().make_context(info_name, args, parent, **extra)

    @override
    def invoke(self, ctx: Any) -> Any:
        with _usage_errors(ctx.info_name):
            return super().invoke(ctx)


@contextmanager
def _usage_errors(name: str | None) -> Iterator[None]:
    """Report wrong usage in one line."""
    try:
        yield
    except _UsageError as error:
        if type(error).__name__ == _HELP_INSTEAD:
            raise
        text = str(error.format_message()).strip()
        path = name if error.ctx is None else error.ctx.command_path
        fail(f"{text}{'' if text.endswith(('.', '?')) else '.'} See `{path} --help`.")
