"""The private attributes of Lightning's loggers, to have one continue; the others are in ``_lightning.py``."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger


def set_logger_version(logger: CSVLogger | TensorBoardLogger, version: int | str) -> None:
    """Give a logger the version that names its folder, where the script named none and its experiment is not made."""
    if logger._version is None and logger._experiment is None:
        logger._version = version


def wandb_experiment(logger: WandbLogger) -> Any:
    """Return the W&B run of a logger; None where it has not been made yet, which asking for it would do."""
    return logger._experiment


def wandb_id(logger: WandbLogger) -> str | None:
    """Return the run id that a logger was given by its script."""
    given = logger._wandb_init.get("id")
    return None if given is None else str(given)


def set_wandb_id(logger: WandbLogger, run_id: str) -> None:
    """Give a logger the id that its W&B run is going to have."""
    logger._wandb_init["id"] = logger._id = run_id
