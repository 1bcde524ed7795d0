"""The directories of ``ModelCheckpoint`` over several starts of a run.

Lightning discards the best models of a callback whose directory has changed. It changes at every start if its name
contains a time stamp, or the version of a logger with a new id for each process.
"""

from __future__ import annotations

import os
from itertools import takewhile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_green._lightning.namespaces import both
from lightning_green.resume.stable_text import stable_text
from lightning_green.strategies.control_group import ControlGroup


def continue_directories(trainer: pl.Trainer, checkpoint: dict[str, Any], ranks: ControlGroup) -> list[str]:
    """Keep the best models of the checkpoint callbacks, and their directories unless the script has changed them.

    The saved directory is used again if it differs only in time stamps, random identifiers or the version of the
    logger. Another one is not taken from the file: a checkpoint names no place to write to.

    Args:
        trainer: The trainer, after ``setup``.
        checkpoint: The checkpoint, before the states of the callbacks are loaded; it is modified.
        ranks: Processes of the training; rank 0 chooses, as for other directories in Lightning.

    Returns:
        One message for each changed directory.

    """
    saved = checkpoint.get("callbacks", {})
    callbacks = [
        one
        for one in trainer.checkpoint_callbacks
        if isinstance(one, both(ModelCheckpoint)) and one.dirpath and saved.get(one.state_key, {}).get("dirpath")
    ]
    before = [(str(one.dirpath), str(saved[one.state_key]["dirpath"])) for one in callbacks]
    default = _default_directory(trainer)
    same = ranks.broadcast([_is_same(current, old, current == default) for current, old in before])
    messages = []
    for callback, (current, old), is_same in zip(callbacks, before, same, strict=True):
        callback.dirpath = saved[callback.state_key]["dirpath"] = old if is_same else current
        if not is_same:
            messages.append(f"New checkpoints are saved in {current}. Those in {old} and their scores still count.")
    return messages


def _default_directory(trainer: pl.Trainer) -> str | None:
    """Return the directory that Lightning chooses from the first logger."""
    if not trainer.loggers:
        return None
    first = trainer.loggers[0]
    version = first.version if isinstance(first.version, str) else f"version_{first.version}"
    return os.path.join(first.save_dir or trainer.default_root_dir, str(first.name), version, "checkpoints")


def _is_same(current: str, saved: str, by_version: bool) -> bool:
    """Return whether two paths differ only in parts that change at every start."""
    if current == saved:
        return True
    ours, theirs = list(Path(current).parts), list(Path(saved).parts)
    if len(ours) != len(theirs) or ".." in theirs:
        return False
    if by_version:
        ours[-2] = theirs[-2]
    equal = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=True))))
    start = max(equal - 1, 1)  # `2026-11-26/12-44-59` is a time stamp, `12-44-59` is not
    return stable_text("/".join(ours[start:])) == stable_text("/".join(theirs[start:]))
