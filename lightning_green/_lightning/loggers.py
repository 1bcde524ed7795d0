"""Lightning's loggers: their identity, the step that they log at, and whether logging is due."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from lightning_green._lightning.namespaces import both


def logging_step(trainer: pl.Trainer) -> int:
    """Return the step at which Lightning logs its own metrics."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def should_log(trainer: pl.Trainer) -> bool:
    """Return whether ``log_every_n_steps`` is due after a training batch, like Lightning's ``should_update_logs``."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and (trainer.fit_loop.epoch_loop._batches_that_stepped + 1) % every == 0


def set_logger_version(logger: CSVLogger | TensorBoardLogger, version: int | str) -> Path | None:
    """Set the version that names a logger's directory, unless the script has set one or has logged something.

    A tuner that ran before makes the logger choose its next free version and create its experiment. That is not a
    choice of the script: as long as nothing is logged, the version is replaced.

    Returns:
        The directory of the replaced version, or None.

    """
    current = logger._version
    if current == version:
        return None
    if current is None:
        logger._version = version
        return None
    directory = Path(logger.log_dir)
    if logger._experiment is None:
        automatic = current == logger._get_next_version()
    else:
        automatic = isinstance(current, int) and not _has_content(directory)
    if not automatic:
        return None
    if isinstance(logger, both(TensorBoardLogger)) and logger._experiment is not None:
        logger.experiment.close()
    logger._experiment, logger._version = None, version
    return directory


def _has_content(directory: Path) -> bool:
    """Return whether something has been logged; TensorBoard writes a header of 88 bytes before its first event."""
    return any(path.is_file() and path.stat().st_size > 100 for path in directory.glob("*"))


def wandb_experiment(logger: WandbLogger) -> Any:
    """Return the W&B run of a logger, or None if it does not exist yet; ``logger.experiment`` would create it."""
    return logger._experiment


def wandb_id(logger: WandbLogger) -> str | None:
    """Return the run id that the script passed to a logger."""
    given = logger._wandb_init.get("id")
    return None if given is None else str(given)


def set_wandb_id(logger: WandbLogger, run_id: str) -> None:
    """Set the id of the W&B run that a logger will create."""
    logger._wandb_init["id"] = logger._id = run_id
