"""Opening the run directory of a supervised command."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.supervisor.command import Command, OtherCommandError, Trainings, are_alive, read_command

_RENAMES = 100
"""Renames of the directory by other supervisors that opening it outlasts."""


def open_run_directory(
    path: Path,
    fresh: bool,
    print_line: Callable[[str], None] = print,
    command: Command | None = None,
    force: bool = False,
) -> RunDirectory:
    """Return the run directory of a command, locked for this supervisor. A finished run is renamed first.

    A command has finished if its exit code was 0. A command that failed after its trainings is continued: its trainings
    are restored, not repeated, and the code after them runs again.

    Args:
        path: The run directory.
        fresh: Start from scratch; the directory of an unfinished run is renamed as well.
        print_line: Receives messages for the user, one line each.
        command: The command; if given, it is compared with the recorded one.
        force: Continue a run of another command.

    Raises:
        OSError: If the directory cannot be created or written.
        RunIsAliveError: If another supervisor uses it, or with ``fresh``, if a training is running in it.
        OtherCommandError: If it belongs to another command and ``force`` is False.

    """
    directory, abandoned = _lock(path)
    recorded, trainings = read_command(path), Trainings.of(path)
    # Without a recorded command, the training was started without a supervisor.
    finished = recorded.get("exit_code") == 0 if recorded else trainings.are_finished and not abandoned
    if trainings.states and (fresh or (finished and not are_alive(path))):
        try:
            archive = directory.move_away()
        finally:
            directory.unlock()
        print_line(f"The {'finished' if finished else 'earlier'} run was moved to {archive}. A new run starts.")
        directory, _ = _lock(path)
        directory.earlier = archive
    elif command is not None and recorded and not force and trainings.states:
        try:
            command.check(path, recorded)
        except OtherCommandError:
            directory.unlock()
            raise
    return directory


def undo_open(directory: RunDirectory, print_line: Callable[[str], None] = print) -> None:
    """Remove a new directory of a command that could not start, and move the earlier run back.

    Args:
        directory: The result of ``open_run_directory``, still locked.
        print_line: Receives a message for the user.

    """
    path, earlier = directory.path, directory.earlier
    if not directory.is_new or Trainings.of(path).states:
        return
    shutil.rmtree(path, ignore_errors=True)
    if earlier is None:
        with suppress(OSError):  # it contains other runs
            path.parent.rmdir()
        return
    with suppress(OSError):  # another supervisor has created it in the meantime
        earlier.rename(path)
        print_line(f"The earlier run was moved back to {path}.")


def _lock(path: Path) -> tuple[RunDirectory, bool]:
    """Lock a run directory; return it, and whether its last supervisor was killed."""
    for attempt in itertools.count(1):
        try:
            directory = RunDirectory(path)
            abandoned = directory.was_abandoned("supervisor")
            directory.lock("supervisor")
        except (FileNotFoundError, FileExistsError):  # another supervisor has renamed it in the meantime
            if attempt == _RENAMES:
                raise
            continue
        try:
            directory.read()
        except BaseException:
            directory.unlock()
            raise
        return directory, abandoned
    raise AssertionError
