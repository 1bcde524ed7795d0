"""The checkpoint files of a finished fit, kept for the restarts of its script.

A later fit of the same script may remove them: Lightning deletes the best checkpoint once there is a better one. When
the finished fit is restored, the script reads ``best_model_path`` again, so the file has to exist.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_green._lightning.namespaces import both
from lightning_green.ledger.run_directory import KEPT
from lightning_green.utilities.trusted_files import is_file_name, make_private

log = logging.getLogger(__name__)


def keep_files(trainer: pl.Trainer, path: Path, fit: int) -> list[list[str]]:
    """Link the files of the checkpoint callbacks of a fit into the run's directory, which takes no disk space.

    Args:
        trainer: The trainer, at the end of the fit.
        path: The run's directory.
        fit: Number of the fit.

    Returns:
        The names of the files of each checkpoint callback.

    """
    kept = []
    for number, callback in enumerate(_callbacks(trainer)):
        files = {callback.best_model_path, callback.last_model_path, *callback.best_k_models}
        names = sorted(Path(file).name for file in files if file and os.path.isfile(file) and _is_in(callback, file))
        for name in names if path.exists() else []:  # a directory that was renamed is not created again
            target = _kept(path, fit, number, name)
            with suppress(OSError):  # reported below
                make_private(target.parent)
            _link(Path(str(callback.dirpath)) / name, target)
        kept.append(names)
    return kept


def restore_files(trainer: pl.Trainer, path: Path, fit: int, kept: Sequence[Sequence[str]]) -> None:
    """Restore missing files of a restored fit, into the directories that its callbacks use at this start.

    Args:
        trainer: The trainer, in ``setup``.
        path: The run's directory.
        fit: Number of the fit.
        kept: The result of ``keep_files``.

    """
    for number, (callback, names) in enumerate(zip(_callbacks(trainer), kept, strict=False)):
        for name in names:
            # a record is untrusted input: it names checkpoints, and links in its directory may lead anywhere
            if callback.dirpath is None or not is_file_name(name) or not name.endswith(callback.FILE_EXTENSION):
                continue
            source = _kept(path, fit, number, name)
            if source.is_file() and source.resolve() == path.resolve() / source.relative_to(path):
                _link(source, Path(callback.dirpath) / name)


def _callbacks(trainer: pl.Trainer) -> list[ModelCheckpoint]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, both(ModelCheckpoint))]


def _is_in(callback: ModelCheckpoint, file: str) -> bool:
    return callback.dirpath is not None and Path(file).parent == Path(callback.dirpath)


def _kept(path: Path, fit: int, number: int, name: str) -> Path:
    return path / KEPT / f"fit{fit}" / str(number) / name


def _link(source: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy2(source, target)
    except OSError as error:
        log.warning("%s could not be kept as %s (%s).", source, target, error)
