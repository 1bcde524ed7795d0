"""Limits of a Trainer, and the directories that it writes to, for a short run of a script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from lightning.pytorch.callbacks.finetuning import BackboneFinetuning
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from lightning_green._lightning.namespaces import both
from lightning_green.utilities.files import is_local_path

EVALUATION_BATCHES = 2


def limit_evaluation(trainer: pl.Trainer) -> None:
    """Limit validation, test and prediction to two batches."""
    for name in ("limit_val_batches", "limit_test_batches", "limit_predict_batches"):
        setattr(trainer, name, _limited(getattr(trainer, name), EVALUATION_BATCHES))


def limit_training(trainer: pl.Trainer, epochs: int, batches: int) -> None:
    """Limit a fit that is about to start.

    Args:
        trainer: The trainer, before ``setup``.
        epochs: Largest number of epochs. A fit that starts from a checkpoint keeps its own.
        batches: Largest number of training batches of an epoch.

    """
    loop, epoch_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    trainer.limit_train_batches = _limited(trainer.limit_train_batches, batches)
    if trainer.ckpt_path is None:
        last = trainer.current_epoch + epochs
        loop.max_epochs = last if loop.max_epochs in (None, -1) else min(loop.max_epochs, last)
        loop.min_epochs = None if loop.min_epochs is None else min(loop.min_epochs, last - 1)
        if epoch_loop.max_steps != -1:
            epoch_loop.max_steps = min(epoch_loop.max_steps, trainer.global_step + epochs * batches)
    every, interval = trainer.check_val_every_n_epoch, trainer.val_check_interval
    if isinstance(interval, int) and interval > batches:
        trainer.val_check_interval = max(1, batches // 2)
    if every is not None and every > epochs:
        trainer.check_val_every_n_epoch = 1


def _limited(limit: float, batches: int) -> float:
    """Return a limit on batches that is not larger; a limit of 0 and a fraction of 0 remain."""
    return limit if limit == 0 or (isinstance(limit, int) and limit <= batches) else batches


def scheduled_changes(trainer: pl.Trainer) -> list[int]:
    """Return the epochs at which callbacks of Lightning change the training, in order."""
    epochs: set[int] = set()
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, both(GradientAccumulationScheduler)):
            epochs.update(callback.scheduling)
        elif isinstance(callback, both(BackboneFinetuning)):
            epochs.add(callback.unfreeze_backbone_at_epoch)
    return sorted(epochs - {0})


def accumulated_batches(trainer: pl.Trainer) -> int:
    """Return the largest number of batches that the training accumulates gradients of."""
    schedules = [one for one in trainer.callbacks if isinstance(one, both(GradientAccumulationScheduler))]  # type: ignore[attr-defined]
    return max([trainer.accumulate_grad_batches, *(n for one in schedules for n in one.scheduling.values())])


def redirect_outputs(trainer: pl.Trainer, directory: Path) -> list[str]:
    """Let the loggers and checkpoint callbacks of a Trainer write below a directory.

    Args:
        trainer: The trainer, before the loggers have created their experiments.
        directory: Files below the working directory are not redirected.

    Returns:
        The classes of loggers that are not redirected.

    """
    unknown = []
    trainer._default_root_dir = _inside(trainer.default_root_dir, directory)  # type: ignore[attr-defined]
    for logger in trainer.loggers:
        if isinstance(logger, both(CSVLogger, TensorBoardLogger)):
            for name in {"_root_dir", "_save_dir"} & set(vars(logger)):
                setattr(logger, name, _inside(getattr(logger, name), directory))
        elif isinstance(logger, both(WandbLogger)):
            logger._save_dir = _inside(logger._save_dir, directory)
            logger._wandb_init |= {"dir": logger._save_dir, "mode": "offline"}
            logger._offline = True
        else:
            unknown.append(type(logger).__name__)
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, both(ModelCheckpoint)) and callback.dirpath is not None:
            callback.dirpath = _inside(callback.dirpath, directory)
    return unknown


def _inside(path: Any, directory: Path) -> str:
    """Return a path that is below the directory: itself, or one made of its parts."""
    if path is None:
        return str(directory)
    if not is_local_path(path):
        return str(directory / "remote" / str(path).partition("://")[2])
    given = Path(path).absolute()
    if given.is_relative_to(Path.cwd()):
        return str(path)
    return str(directory.joinpath(*given.parts[1:]))
