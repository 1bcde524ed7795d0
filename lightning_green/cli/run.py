"""``lightning-green run`` and ``lightning-green status``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lightning_green.ledger.run_directory import RunFolder, RunIsAliveError, run_directories
from lightning_green.report.status import status_text
from lightning_green.run.identity import distinguishing, run_name
from lightning_green.supervisor.command import FILE as COMMAND_FILE
from lightning_green.supervisor.command import Command, OtherCommandError
from lightning_green.supervisor.supervisor import Supervisor, open_folder
from lightning_green.utilities.clock import clock_from_spec

BAD_USAGE, ALIVE = 2, 3


def run(
    command: Annotated[list[str] | None, typer.Argument(help="The training to start, after `--`.")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: lightning_green_runs/<script>-<hash>.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew; the earlier folder is kept.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Continue with the new values where model, optimizer or data have changed.")
    ] = False,
    max_restarts: Annotated[
        int, typer.Option(min=0, help="Crashes in a row without a new step after which to give up.")
    ] = 3,
    clock: Annotated[
        str | None, typer.Option(help="Clock for a rehearsal: simulated:start=TIME,batch=S,checkpoint=S,restart=S.")
    ] = None,
) -> None:
    """Start a command, and start it again whenever a training in it has exited, until all of it is finished.

    The command may contain one training, several, or none; each has a run of its own.

    Exit codes: 0 finished; the command's own code if it failed after its trainings; 1 given up; 2 wrong usage, or the
    directory belongs to another command; 3 the run is alive in another process; 130 and 143 stopped by SIGINT and
    SIGTERM (the same line continues).
    """
    if not command:
        _fail("Say what to start after `--`, for example: lightning-green run -- python train.py", BAD_USAGE)
    if clock is not None:
        try:
            clock_from_spec(clock)
        except ValueError as error:
            _fail(f"`--clock {clock}` cannot be used: {error}", BAD_USAGE)
    name = run_name(command, variables=distinguishing()) + ("" if clock is None else "-simulated")
    path = (run_dir or Path("lightning_green_runs") / name).absolute()
    try:
        given = Command(tuple(command), os.getcwd(), clock)
        folder = open_folder(path, fresh, say=_say, command=given, force=force)
    except RunIsAliveError as error:
        _fail(str(error), ALIVE)
    except OtherCommandError as error:
        _fail(str(error), BAD_USAGE)
    except (RuntimeError, ValueError) as error:
        _fail(_unreadable(path, error), BAD_USAGE)
    except OSError as error:
        _fail(
            f"The run folder {path} cannot be written ({error.strerror}). Name another one with --run-dir.", BAD_USAGE
        )
    _say(f"Run folder: {path}")
    if clock is not None:
        _say(
            "This is a rehearsal: waiting takes no time, the training is real. The script writes its checkpoints and "
            "logs where it always does; the training lists these places when it starts."
        )
    supervisor = Supervisor(command, folder, max_restarts=max_restarts, force=force, clock=clock, say=_say)
    try:
        code = supervisor.run()
    finally:
        folder.unlock()
    raise typer.Exit(code)


def status(run_dir: Annotated[Path, typer.Argument(help="Folder of the run.")]) -> None:
    """Show what a run is doing, when it will continue, and what it has used."""
    if not any((run_dir / name).exists() for name in ("run.json", COMMAND_FILE)):
        _fail(f"{run_dir} is not a run's folder: it has no run.json. Runs are in lightning_green_runs/.", BAD_USAGE)
    try:
        texts = [status_text(RunFolder(path)) for path in run_directories(run_dir.absolute())]
    except (RuntimeError, ValueError) as error:
        _fail(_unreadable(run_dir, error), BAD_USAGE)
    typer.echo("\n\n".join(texts))


def _unreadable(path: Path, error: RuntimeError | ValueError) -> str:
    if isinstance(error, RuntimeError):  # written by another version, which it says itself
        return str(error)
    return f"{path / 'run.json'} is damaged ({error}). Move the folder away, or name another one with --run-dir."


def _say(line: str) -> None:
    typer.echo(f"lightning-green: {line}", err=True)


def _fail(line: str, code: int) -> NoReturn:
    _say(line)
    raise typer.Exit(code)
