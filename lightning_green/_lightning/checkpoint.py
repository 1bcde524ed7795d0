"""Lightning's checkpoint connector: collecting a checkpoint, and choosing the one that a fit restores."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.migration import utils as migration

from lightning_green._lightning.replaced import replace_method

_HYPERPARAMETERS = (
    pl.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY,
    pl.LightningModule.CHECKPOINT_HYPER_PARAMS_NAME,
    pl.LightningModule.CHECKPOINT_HYPER_PARAMS_TYPE,
    pl.LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY,
    pl.LightningDataModule.CHECKPOINT_HYPER_PARAMS_NAME,
    pl.LightningDataModule.CHECKPOINT_HYPER_PARAMS_TYPE,
)


def dump_checkpoint(trainer: pl.Trainer, with_model: bool = True) -> dict[str, Any]:
    """Return the checkpoint that Lightning would save.

    Args:
        trainer: The trainer.
        with_model: Whether to include weights and optimizer states. Lightning gathers sharded ones, which crashes
            torch on CPU.

    """
    strategy = trainer.strategy
    if not with_model:
        strategy.lightning_module_state_dict = dict  # type: ignore[method-assign]
        strategy.optimizer_state = lambda optimizer: {}  # type: ignore[method-assign]
    try:
        checkpoint: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    finally:
        if not with_model:
            del strategy.lightning_module_state_dict, strategy.optimizer_state
    return checkpoint


def inject_checkpoint(
    trainer: pl.Trainer, load: Callable[[Any], tuple[str, dict[str, Any]] | None]
) -> Callable[[], None]:
    """Make the next restore of this fit use the checkpoint that ``load`` returns; None keeps the user's own.

    ``setup`` is the last hook before the restore, and ``fit`` has passed ``ckpt_path`` on as a local variable by then.

    Args:
        trainer: The trainer.
        load: Returns the path and the content of a checkpoint. Its argument is the user's ``ckpt_path`` or None.

    Returns:
        A function that undoes it, for a fit that ends before the restore.

    """
    connector = trainer._checkpoint_connector
    original = connector.resume_start

    def resume_start(checkpoint_path: Any = None, weights_only: bool | None = None) -> None:
        undo()  # a tuner restores the states from before its search
        loaded = load(checkpoint_path)
        if loaded is None:
            original(checkpoint_path, weights_only)
        else:
            path, checkpoint = loaded
            connector._ckpt_path = path
            connector._loaded_checkpoint = migration._pl_migrate_checkpoint(checkpoint, path)

    undo = replace_method(connector, "resume_start", resume_start)
    return undo


def drop_hyperparameters(checkpoint: dict[str, Any]) -> None:
    """Remove the hyperparameters of the module and the data module from a checkpoint."""
    for key in _HYPERPARAMETERS:
        checkpoint.pop(key, None)


def drop_loader_states(checkpoint: dict[str, Any]) -> None:
    """Remove the states of stateful loaders, which may be one batch ahead, from a checkpoint."""
    checkpoint.get("loops", {}).get("fit_loop", {}).get("state_dict", {}).pop("combined_loader", None)


def add_hyperparameters(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    """Add the live hyperparameters to a checkpoint, for scripts whose ``on_load_checkpoint`` reads them."""
    for owner in (trainer.lightning_module, trainer.datamodule):  # type: ignore[attr-defined]
        if owner is not None and owner.hparams:
            checkpoint[owner.CHECKPOINT_HYPER_PARAMS_KEY] = dict(owner.hparams)


def filter_resume_warnings() -> None:
    """Ignore warnings of Lightning that an exact resume makes obsolete: mid-epoch checkpoints, directories in use."""
    for message in (
        "You're resuming from a checkpoint that ended before the epoch ended",
        "Checkpoint directory .* exists and is not empty",
    ):
        warnings.filterwarnings("ignore", message=message)
