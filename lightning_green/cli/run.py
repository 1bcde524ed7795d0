"""``lightning-green run`` and ``lightning-green status``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lightning_green.report.status import status_text
from lightning_green.runtime.clock import clock_from_spec
from lightning_green.runtime.run_folder import RunFolder, RunIsAliveError, run_name
from lightning_green.runtime.supervisor import Supervisor, open_folder

BAD_USAGE, ALIVE = 2, 3


def run(
    command: Annotated[list[str] | None, typer.Argument(help="The training to start, after `--`.")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: lightning_green_runs/<script>-<hash>.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew; the earlier folder is kept.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Continue although model, optimizer or data have changed.")
    ] = False,
    max_restarts: Annotated[
        int, typer.Option(min=0, help="Crashes in a row without a new step after which to give up.")
    ] = 3,
    clock: Annotated[
        str | None, typer.Option(help="Clock for a rehearsal: simulated:start=TIME,batch=S,checkpoint=S,restart=S.")
    ] = None,
) -> None:
    """Start a training, and start it again whenever it has left, until it is finished.

    Exit codes: 0 finished; the script's own code if it failed after the training; 1 given up; 2 wrong usage; 3 the run
    is alive in another process; 130 and 143 stopped by SIGINT and SIGTERM (the same line continues).
    """
    if not command:
        _fail("Say what to start after `--`, for example: lightning-green run -- python train.py", BAD_USAGE)
    if clock is not None:
        try:
            clock_from_spec(clock)
        except ValueError as error:
            _fail(f"`--clock {clock}` cannot be used: {error}", BAD_USAGE)
    path = (run_dir or Path("lightning_green_runs") / run_name(command)).absolute()
    try:
        folder = open_folder(path, fresh, say=_say)
    except RunIsAliveError as error:
        _fail(str(error), ALIVE)
    except (RuntimeError, ValueError) as error:
        _fail(_unreadable(path, error), BAD_USAGE)
    except OSError as error:
        _fail(
            f"The run folder {path} cannot be written ({error.strerror}). Name another one with --run-dir.", BAD_USAGE
        )
    folder.record.setdefault("argv", command)
    folder.record.setdefault("cwd", os.getcwd())
    folder.save()
    _say(f"Run folder: {path}")
    supervisor = Supervisor(command, folder, max_restarts=max_restarts, force=force, clock=clock, say=_say)
    try:
        code = supervisor.run()
    finally:
        folder.unlock()
    raise typer.Exit(code)


def status(run_dir: Annotated[Path, typer.Argument(help="Folder of the run.")]) -> None:
    """Tell what a run is doing, when it will go on, and what it has used."""
    if not (run_dir / "run.json").exists():
        _fail(f"{run_dir} is not a run's folder: it has no run.json. Runs are in lightning_green_runs/.", BAD_USAGE)
    try:
        folder = RunFolder(run_dir.absolute())
    except (RuntimeError, ValueError) as error:
        _fail(_unreadable(run_dir, error), BAD_USAGE)
    typer.echo(status_text(folder))


def _unreadable(path: Path, error: RuntimeError | ValueError) -> str:
    if isinstance(error, RuntimeError):  # written by another version, which it says itself
        return str(error)
    return f"{path / 'run.json'} is damaged ({error}). Move the folder away, or name another one with --run-dir."


def _say(line: str) -> None:
    typer.echo(f"lightning-green: {line}", err=True)


def _fail(line: str, code: int) -> NoReturn:
    _say(line)
    raise typer.Exit(code)
