"""The run that this process is in, and the fits of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lightning_green.runtime import _lightning
from lightning_green.runtime.accounting import Totals
from lightning_green.runtime.clock import SystemClock, clock_from_environment
from lightning_green.runtime.fit import Fit
from lightning_green.runtime.launchers import requeued
from lightning_green.runtime.nodes import Node
from lightning_green.runtime.past import Past, read_past
from lightning_green.runtime.run import Run, RunOptions
from lightning_green.runtime.run_folder import (
    RESUME_VARIABLE,
    RUN_DIR_VARIABLE,
    SUPERVISED_VARIABLE,
    RunFolder,
    RunIsAliveError,
    command_line,
    run_name,
    set_aside,
)

log = logging.getLogger(__name__)

_current: Run | None = None
_fits_in_process = 0


def join_fit(trainer: pl.Trainer, callback: Any, options: Callable[[], RunOptions]) -> Fit:
    """Return the fit that ``callback`` takes part in; the first callback of a Trainer makes it.

    Args:
        trainer: The trainer, in ``fit``, before ``setup``.
        callback: The green callback.
        options: Returns what all green callbacks of this Trainer ask for together.

    """
    global _current, _fits_in_process
    fit: Fit | None = getattr(trainer, "_lightning_green_fit", None)
    if fit is not None and not fit.closed and callback not in fit.members:
        fit.members.append(callback)
        return fit
    wanted = options()
    path = run_path(trainer)
    told: list[str] = []
    if _current is not None and _current.path != path:
        _current.close()
        _current = None
    if _current is None:
        node = Node(trainer.node_rank, trainer.num_nodes, trainer.local_rank)
        try:  # one brain: rank 0 alone has the folder and decides
            if _lightning.early_rank(trainer) == 0:
                _current, told = open_run(path, wanted, node)
            else:
                _current = bystander(node, wanted)
        except RunIsAliveError:
            _lightning.stop_other_ranks(trainer)  # they would wait for this one until their time is out
            raise
        _current.path = path
        _fits_in_process = 0
    else:
        _current.options = _current.options.join(wanted)
    fit = Fit(_current, trainer, _fits_in_process, told)
    _fits_in_process += 1
    fit.members.append(callback)
    trainer._lightning_green_fit = fit  # type: ignore[attr-defined]
    fit.prepare_loggers()
    return fit


def run_path(trainer: pl.Trainer) -> Path:
    """Return the folder of this process's run."""
    given = os.environ.get(RUN_DIR_VARIABLE)
    if given:
        return Path(given).absolute()
    return Path(trainer.default_root_dir).absolute() / "lightning_green" / run_name(command_line())


def close_current_run() -> None:
    """End this process's run, so that another one can begin in it (notebooks, tests)."""
    global _current, _fits_in_process
    if _current is not None:
        _current.close()
    _current, _fits_in_process = None, 0


def open_run(path: Path, options: RunOptions, node: Node | None = None) -> tuple[Run, list[str]]:
    """Open the run in ``path``: go on with it or begin anew, as its ledger and the environment say.

    Args:
        path: The run's folder.
        options: What the callbacks ask for.
        node: The node of this process.

    Returns:
        The run, and lines to tell the user.

    Raises:
        RunIsAliveError: If another process is in it.

    """
    clock = clock_from_environment() or options.clock or SystemClock()
    told: list[str] = []
    try:
        folder = RunFolder(path)
        folder.lock("run")
        past = read_past(path)
        continuing, aside = _decide(path, past, told)
        if aside:
            folder.unlock()
            kept = set_aside(path)
            told[-1] += f" It is kept in {kept}."
            folder, past = RunFolder(path), Past([], Totals())
            folder.lock("run")
        clock.bind(path)
        attempt = past.attempts + 1
        if attempt == 1 and "script" not in folder.record:
            folder.save()
        return Run(folder, options, clock, attempt, continuing, past, node), told
    except RunIsAliveError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a `run.json` that is damaged
        log.warning(
            "The run folder %s cannot be used (%s). Training goes on without a ledger, and without leaving while it "
            "waits; make the folder writable or name another one with LIGHTNING_GREEN_RUN_DIR.",
            path,
            (error.strerror if isinstance(error, OSError) else None) or error,
        )
        return Run(None, options, clock, 1, continuing=False, node=node), told


def bystander(node: Node, options: RunOptions) -> Run:
    """Return the run of every process but rank 0.

    The first one of another node measures, on rank 0's time, and writes a ledger once rank 0 has said where. All others
    neither measure nor write.
    """
    if node.rank == 0 or node.process > 0:
        return Run(None, RunOptions(meter=None), SystemClock(), 1, continuing=False, node=node)
    clock = clock_from_environment() or options.clock or SystemClock()
    return Run(None, replace(options, grid=None, zone=None), clock, 1, continuing=False, node=node)


def _decide(path: Path, past: Past, told: list[str]) -> tuple[bool, bool]:
    """Return (whether to go on with the run, whether to put its folder aside first)."""
    last = past.state
    if last is None:
        return bool(past.records), False
    event, where = last["event"], f"step {last.get('global_step', 0)}"
    supervised = SUPERVISED_VARIABLE in os.environ
    if (
        event == "paused"
        or supervised
        or (event != "finished" and (os.environ.get(RESUME_VARIABLE) == "1" or requeued()))
    ):
        return True, False
    if event == "finished":
        told.append(f"The run in {path} had finished; this is a fresh one.")
    else:
        was = "was interrupted" if event == "interrupted" else "failed" if event == "failed" else "was killed"
        told.append(
            f"The run in {path} {was} at {where}; this is a fresh one. To continue the old one instead, start it with "
            f"`LIGHTNING_GREEN_RESUME=1 LIGHTNING_GREEN_RUN_DIR=<its folder>` or under `lightning-green run`."
        )
    return False, True
