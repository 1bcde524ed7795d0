"""Lightning's loggers: their identity, the step that they log at, and whether logging is due."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger


def logging_step(trainer: pl.Trainer) -> int:
    """Return the step at which Lightning logs its own metrics."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def should_log(trainer: pl.Trainer) -> bool:
    """Return whether ``log_every_n_steps`` is due after a training batch, like Lightning's ``should_update_logs``."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and (trainer.fit_loop.epoch_loop._batches_that_stepped + 1) % every == 0


def set_logger_version(logger: CSVLogger | TensorBoardLogger, version: int | str) -> None:
    """Set the version that names a logger's directory, unless the script set one or the experiment exists.

    A tuner that ran before may have made the logger choose its next free version, which is not a choice of the script.
    """
    automatic = logger._version is None or logger._version == logger._get_next_version()
    if automatic and logger._experiment is None:
        logger._version = version


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
