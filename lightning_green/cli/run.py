"""The command ``lightning-green run``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lightning_green.cli.dry_run import dry_run as show_plan
from lightning_green.cli.messages import fail, print_line
from lightning_green.ledger.release_record import write_release
from lightning_green.ledger.run_directory import RunDirectory, RunIsAliveError
from lightning_green.run.identity import distinguishing_variables, run_name
from lightning_green.run.pause_rule import PAUSE_RULE_VARIABLE, PauseAt, read_check
from lightning_green.supervisor.child import why_not_executable
from lightning_green.supervisor.command import Command, OtherCommandError, read_command
from lightning_green.supervisor.launchers import (
    RESUBMITTED_VARIABLE,
    Launcher,
    LocalLauncher,
    SLURMLauncher,
    choose_launcher,
)
from lightning_green.supervisor.run_directory import open_run_directory, undo_open
from lightning_green.supervisor.supervisor import FINISHED, Supervisor
from lightning_green.utilities.clock import CLOCK_VARIABLE, clock_from_spec
from lightning_green.utilities.durations import parse_duration

ALIVE = 3


class LauncherName(str, Enum):
    """What waits for the planned time of the next start."""

    AUTO = "auto"
    LOCAL = "local"
    SLURM = "slurm"
    KUBERNETES = "kubernetes"


def run(
    command: Annotated[list[str] | None, typer.Argument(help="Training command, after `--`.")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Run directory. Default: lightning_green_runs/<script>-<hash>.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start from scratch; the old directory is renamed.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Continue with the new values if the model, optimizer or data have changed.")
    ] = False,
    stop_timeout: Annotated[
        str, typer.Option(help="Time for saving the state and exiting after a signal, such as 90s. Then it is killed.")
    ] = "5m",
    max_restarts: Annotated[int, typer.Option(min=0, help="Restarts without a new step before giving up.")] = 3,
    clock: Annotated[
        str | None,
        typer.Option(help="Simulated clock for a rehearsal: simulated:start=TIME,batch=S,checkpoint=S,restart=S."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan: whether the job would wait. Nothing is trained or kept.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that the command may take to its first plan, with --dry-run.")
    ] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as one JSON object, with --dry-run.")] = False,
    launcher: Annotated[
        LauncherName,
        typer.Option(
            help="During a wait, slurm requeues the SLURM job, kubernetes suspends the Job, auto and local wait here."
        ),
    ] = LauncherName.AUTO,
) -> None:
    """Start a command, and start it again after each planned exit or crash until it has finished.

    The command may contain one training, several, or none. Each training has its own run directory.

    With --dry-run, the plan of a run directory is printed, or, if there is none, that of the command, which is started
    in a copy of the working directory until its scheduler has planned; with several trainings, that of the first.

    Exit codes: 0 finished; 1 gave up; 2 wrong usage, or the directory belongs to another command; 3 the run is already
    running in another process; 69 paused because a budget is used; 75 another SLURM job or pod continues; 126 and 127
    the command cannot be executed or does not exist; 128 + N stopped by signal N, for example 130 by Ctrl-C (the same
    command continues). If the command fails after its trainings, its own exit code is returned. With --dry-run: 0 there
    is a plan; 1 the training plans nothing; 2 wrong usage, or the command fails.
    """
    if as_json and not dry_run:
        fail("`--json` is for --dry-run. For the state of a run: lightning-green status RUN_DIR --json")
    if not command and not (dry_run and run_dir is not None):
        fail("The command is missing. Add it after `--`, for example: lightning-green run -- python train.py")
    if clock is not None:
        try:
            clock_from_spec(clock)
        except ValueError as error:
            fail(f"`--clock {clock}` cannot be used: {error}")
    try:
        stop_seconds = parse_duration(stop_timeout).total_seconds()
    except ValueError as error:
        fail(f"`--stop-timeout {stop_timeout}` cannot be used: {error}")
    if command and (problem := why_not_executable(command[0])) is not None:
        fail(*problem)
    path = run_dir.absolute() if run_dir else _default_directory(command or (), clock)
    if dry_run:
        if clock is not None:
            fail("`--clock` cannot be combined with --dry-run, which plans for the present. Drop one of them.")
        show_plan(command, path, fresh, timeout, as_json, _launcher(launcher, clock))
        return
    assert command
    chosen = _launcher(launcher, clock)
    chosen.prepare(print_line)
    given = Command(tuple(command), os.getcwd(), clock)
    if chosen.has_restarted and read_command(path).get("exit_code") == FINISHED:
        print_line(f"The run in {path} has finished, and a job that is started again does not train again.")
        raise typer.Exit(FINISHED)
    directory = _open(path, fresh and not chosen.has_restarted, given, force)
    os.environ.pop(RESUBMITTED_VARIABLE, None)  # other jobs that the command submits inherit the environment
    write_release(path, None)
    print_line(f"Run directory: {path}")
    if clock is not None:
        print_line(
            "Rehearsal on a simulated clock: waiting takes no time, but the training is real. The script writes its "
            "checkpoints and logs to the usual places, which are listed when training starts."
        )
    _apply_check(command)
    while True:
        supervisor = Supervisor(given, directory, max_restarts, force, print_line, stop_seconds, chosen)
        try:
            code = supervisor.run()
            if supervisor.could_not_start:
                undo_open(directory, print_line)
        finally:
            directory.unlock()  # the next start may come on another machine, before this process ends
        release = supervisor.releasing.release_machine()
        if release is not None:
            write_release(path, release.by)
            raise typer.Exit(release.end())
        if supervisor.releasing.begin_again is None:
            raise typer.Exit(code)
        if not chosen.can_release:
            chosen = LocalLauncher()  # the machine is kept
        directory = _open(path, False, given, force)


def _launcher(name: LauncherName, clock: str | None) -> Launcher:
    """Return the launcher of an option; a wrong one ends the command."""
    simulated = f"`--clock {clock}`" if clock is not None else os.environ.get(CLOCK_VARIABLE) and f"`{CLOCK_VARIABLE}`"
    if name in (LauncherName.SLURM, LauncherName.KUBERNETES) and simulated:
        fail(
            f"`--launcher {name.value}` cannot be used with {simulated}: a rehearsal does not wait. Use --launcher "
            "local."
        )
    try:
        chosen = choose_launcher(name.value)
    except ValueError as error:
        fail(f"`--launcher {name.value}` cannot be used: {error}")
    if name is LauncherName.AUTO and clock is None and SLURMLauncher.detect() and not LocalLauncher.detect():
        print_line("This SLURM job keeps its nodes while the run waits. To release them: --launcher slurm")
    return chosen


def _open(path: Path, fresh: bool, command: Command, force: bool) -> RunDirectory:
    """Return the locked run directory of a command; a directory that cannot be used ends the command."""
    try:
        return open_run_directory(path, fresh, print_line=print_line, command=command, force=force)
    except RunIsAliveError as error:
        fail(str(error), ALIVE)
    except OtherCommandError as error:
        fail(str(error))
    except (RuntimeError, ValueError) as error:  # another version, or damaged
        fail(str(error))
    except OSError as error:
        fail(f"The run directory {path} cannot be written ({error.strerror}). Choose another one with --run-dir.")


def _default_directory(command: Sequence[str], clock: str | None) -> Path:
    name = run_name(command, variables=distinguishing_variables()) + ("" if clock is None else "-simulated")
    return (Path("lightning_green_runs") / name).absolute()


def _apply_check(command: list[str]) -> None:
    """Pass the result of the last check of a command to its trainings."""
    os.environ.pop(PAUSE_RULE_VARIABLE, None)
    rule, applies = read_check(command)
    if rule is None:
        return
    if not applies:
        print_line("The script has changed since its last check. Check it again: lightning-green check -- ...")
    elif rule.at is not PauseAt.BATCH:
        os.environ[PAUSE_RULE_VARIABLE] = str(rule)
        where = "is saved, and exits, at the end of an epoch only" if rule.at is PauseAt.EPOCH else "is not paused"
        print_line(f"By its last check, the training {where}: {rule.reason}.")
