"""Lightning's loggers: their identity, the step that they log at, and whether logging is due."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

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


def purge_tensorboard(logger: TensorBoardLogger, step: int) -> None:
    """Remove the points at ``step`` and later ones that an earlier process has logged, when TensorBoard reads them.

    ``SummaryWriter(purge_step=...)`` writes the same two events. The restored step is known only after Lightning has
    created the writer.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    writer = logger.experiment.file_writer
    writer.add_event(Event(step=step, file_version="brain.Event:2"))
    writer.add_event(Event(step=step, session_log=SessionLog(status=SessionLog.START)))


def mlflow_id(logger: MLFlowLogger) -> str | None:
    """Return the id of the run that the script passed to a logger or that the logger has created."""
    return logger._run_id


def set_mlflow_id(logger: MLFlowLogger, run_id: str | None) -> None:
    """Set the id of the run that a logger continues; None for a new run."""
    logger._run_id = run_id


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
