"""The run that this process is in, and the fits of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lightning_green.runtime import _lightning
from lightning_green.runtime.fit import Fit
from lightning_green.runtime.run import Run, RunOptions, bystander, open_run
from lightning_green.runtime.run_folder import RUN_DIR_VARIABLE, command_line, run_name

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
        rank = _lightning.early_rank(trainer)  # one brain: rank 0 alone measures, decides and writes
        _current, told = open_run(path, wanted) if rank == 0 else (bystander(), [])
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
