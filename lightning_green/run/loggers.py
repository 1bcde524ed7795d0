"""Continuing the same run in each logger after a restart."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lightning_green._lightning import loggers as _lightning_loggers
from lightning_green._lightning.namespaces import both
from lightning_green.run import csv_rows
from lightning_green.utilities.trusted_files import is_file_name

log = logging.getLogger(__name__)


def continue_loggers(trainer: pl.Trainer, saved: dict[str, Any], fit: int) -> dict[str, Any]:
    """Restore the identity of each logger and return the identities to save.

    W&B and MLflow use the same run id; CSV and TensorBoard use the same version. The default checkpoint directory
    depends on the version, and ``ModelCheckpoint`` discards its best models when its directory changes. Call this
    function before the experiments are created.

    Args:
        trainer: The trainer, before ``setup``.
        saved: Result of this function in an earlier process, or an empty dict.
        fit: Number of the fit in this process.

    """
    identities: dict[str, Any] = dict(saved)
    for index, logger in enumerate(trainer.loggers):
        key = f"{fit}.{index}.{type(logger).__name__}"
        if isinstance(logger, both(WandbLogger)):
            known = saved.get(key)
            identities[key] = _continue_wandb(logger, known if is_file_name(known) else None)
        elif isinstance(logger, both(MLFlowLogger)):
            known = saved.get(key)
            run_id = _continue_mlflow(logger, known if is_file_name(known) else None)
            if run_id is not None:
                identities[key] = run_id
        elif isinstance(logger, both(CSVLogger, TensorBoardLogger)):
            version = saved.get(key) if csv_rows.is_local(logger) else None  # `CSVLogger` would delete a remote file
            if not isinstance(version, int) and not is_file_name(version):  # it names a directory to write to
                version = None
            if version is not None:
                replaced = _lightning_loggers.set_logger_version(logger, version)
                if replaced is not None:
                    _move_checkpoints(trainer, replaced, logger.log_dir)
            identities[key] = logger.version
            if isinstance(logger, both(CSVLogger)) and version is not None:
                csv_rows.keep_rows(logger)
    return identities


def _move_checkpoints(trainer: pl.Trainer, replaced: Path, directory: str) -> None:
    """Point checkpoint callbacks that a tuner has set up to the directory of the restored version."""
    for callback in trainer.checkpoint_callbacks:
        dirpath = getattr(callback, "dirpath", None)
        if dirpath is not None and Path(dirpath).absolute() == (replaced / "checkpoints").absolute():
            # joined as Lightning does: the callback compares it with the saved one as a string
            callback.dirpath = os.path.join(directory, "checkpoints")  # type: ignore[attr-defined]
    for empty in (replaced / "checkpoints", replaced):
        with suppress(OSError):
            empty.rmdir()  # only if it is empty


def _continue_wandb(logger: WandbLogger, saved: str | None) -> str:
    experiment = _lightning_loggers.wandb_experiment(logger)
    if experiment is not None:  # the script created it before `fit`
        own = str(experiment.id)
        if saved is not None and own != saved:
            log.warning(
                "This part of the run is logged to the new W&B run %s instead of %s, because the script used "
                "`logger.experiment` before `fit`. Start it with `lightning-green run`, which sets the run id.",
                own,
                saved,
            )
        return own
    wanted = _lightning_loggers.wandb_id(logger) or os.environ.get("WANDB_RUN_ID") or saved or uuid.uuid4().hex[:8]
    _lightning_loggers.set_wandb_id(logger, wanted)
    return wanted


def _continue_mlflow(logger: MLFlowLogger, saved: str | None) -> str | None:
    """Continue the saved run, or create one; return its id, which is None on other ranks than 0."""
    if saved is None or _lightning_loggers.mlflow_id(logger) is not None:
        return logger.run_id
    try:
        _lightning_loggers.set_mlflow_id(logger, saved)
        return logger.run_id
    except Exception as error:  # noqa: BLE001 - of MLflow, which is not imported here
        log.warning("The MLflow run %s cannot be continued (%s). A new run is created.", saved, error)
        _lightning_loggers.set_mlflow_id(logger, None)
        return logger.run_id


def purge_repeated_steps(trainer: pl.Trainer, step: int) -> None:
    """Remove the points of TensorBoard from ``step`` on, which are logged again after a kill; on rank 0."""
    for logger in trainer.loggers if trainer.is_global_zero else []:
        if isinstance(logger, both(TensorBoardLogger)):
            try:
                _lightning_loggers.purge_tensorboard(logger, step)
            except (ImportError, AttributeError, OSError) as error:  # a writer of another package
                log.warning("TensorBoard may show the steps from %d on twice (%s).", step, error)


def log_to_all(trainer: pl.Trainer, metrics: dict[str, float], step: int) -> None:
    """Log metrics to every logger of the trainer as Python floats. ``self.log`` would convert them to float32."""
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step=step)


def _experiments(trainer: pl.Trainer) -> list[Any]:
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, both(WandbLogger))]


def define_axes(trainer: pl.Trainer) -> None:
    """Use the hours since the first start, which include all pauses, as x axis of our metrics in W&B."""
    for experiment in _experiments(trainer):
        experiment.define_metric("carbon/elapsed_hours")
        for name in ("carbon/*", "energy/*"):
            experiment.define_metric(name, step_metric="carbon/elapsed_hours")


def summarize(trainer: pl.Trainer, summary: Mapping[str, Any]) -> None:
    """Write the totals to the summary of the W&B run."""
    numbers = {name: value for name, value in summary.items() if isinstance(value, (int, float))}
    for experiment in _experiments(trainer):
        experiment.summary.update(numbers)


def mark_preempting(trainer: pl.Trainer) -> None:
    """Mark each W&B run as preempted, because it will be continued."""
    for experiment in _experiments(trainer):
        experiment.mark_preempting()


def finish_experiments(trainer: pl.Trainer, exit_code: int) -> None:
    """Finish each W&B run in this process."""
    for experiment in _experiments(trainer):
        experiment.finish(exit_code=exit_code)


def flush(trainer: pl.Trainer) -> None:
    """Write the buffered values of every logger."""
    logger: Logger
    for logger in trainer.loggers:
        logger.save()


def wandb_folders(trainer: pl.Trainer) -> list[str]:
    """Return the directories of the offline W&B runs of this process."""
    return [
        str(Path(experiment.dir).parent)
        for experiment in _experiments(trainer)
        if getattr(experiment, "offline", False)
    ]


def record_wandb_folders(trainer: pl.Trainer, record: dict[str, Any]) -> None:
    """Add the directories of the offline W&B runs of this process to the record of the run."""
    known = record.setdefault("wandb_folders", [])
    known += [path for path in wandb_folders(trainer) if path not in known]
