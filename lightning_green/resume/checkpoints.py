"""Checkpoints of a run on disk.

Each is written to a temporary file, flushed and renamed, so that the last good checkpoint always exists.
"""

from __future__ import annotations

import logging
import pickle
import re
import struct
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lightning_green.ledger.run_directory import final_path
from lightning_green.resume.plain_data import from_plain
from lightning_green.utilities.files import atomic_file
from lightning_green.utilities.reading import open_regular

log = logging.getLogger(__name__)

STATE_KEY = "lightning_green"
"""Key of the exact training state in a checkpoint."""
STATE_VERSION = 6
"""Version of the layout of that state; a version restores only its own."""
OWNER_KEY = "owner"
"""Key of the run and the fit in that state."""
SHARDS_KEY = "lightning_green_shards"
"""Key of the files that belong to a checkpoint: their names and sizes in bytes."""

# Errors of torch's reader and unpickler for unexpected bytes.
DAMAGED = (
    RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError, struct.error, LookupError, AttributeError,
    TypeError, AssertionError, OverflowError, MemoryError, ArithmeticError,
)  # fmt: skip
_SHARD = re.compile(r"\.rank(\d{1,9})\.shard")
_NAME = re.compile(r"fit(\d+)-step(\d+)-(\d+)\.ckpt")


class Owner(NamedTuple):
    """The run and the fit that a checkpoint belongs to."""

    run_id: str
    fit: int


class StoredCheckpoint(NamedTuple):
    """A checkpoint in the directory of a run."""

    fit: int
    global_step: int
    number: int
    path: Path


def list_checkpoints(folder: Path, fit: int) -> list[StoredCheckpoint]:
    """Return the checkpoints of one fit of a run, oldest first."""
    found = [
        StoredCheckpoint(int(match[1]), int(match[2]), int(match[3]), path)
        for path in (folder / "checkpoints").glob(f"fit{fit}-step*.ckpt")
        if (match := _NAME.fullmatch(path.name))
    ]
    return sorted(found, key=lambda stored: stored.number)


def checkpoint_path(folder: Path, fit: int, global_step: int, number: int) -> Path:
    """Return the path of a checkpoint of a running fit."""
    return folder / "checkpoints" / f"fit{fit}-step{global_step:09d}-{number}.ckpt"


def next_number(folder: Path, fit: int) -> int:
    """Return the number of the next checkpoint of a fit."""
    earlier = list_checkpoints(folder, fit)
    return earlier[-1].number + 1 if earlier else 0


def shard_path(path: Path, rank: int) -> Path:
    """Return the path of one rank's part of a checkpoint of a sharded model."""
    return path.with_name(f"{path.stem}.rank{rank}.shard")


def shard_is_complete(shard: Path, size: int, seconds: float = 10.0) -> bool:
    """Return whether the file of another process is visible and complete.

    Args:
        shard: Path of the file.
        size: Its size in bytes.
        seconds: Time to wait for it, because a network file system may show it late.

    """
    limit = time.monotonic() + seconds
    while True:
        try:
            if shard.stat().st_size == size:
                return True
        except OSError:
            pass
        if time.monotonic() > limit:
            return False
        time.sleep(0.1)


def write_durably(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a kill or a full disk leaves either the whole file or none.

    Raises:
        OSError: If the disk is full or cannot be written; a previous file of this name is unchanged.

    """
    try:
        with atomic_file(path, permissions=0o600) as file:
            torch.save(checkpoint, file)
    except RuntimeError as error:  # torch's writer turns a short write into a RuntimeError
        raise OSError(f"{path} could not be written: {error}") from error


def store_checkpoint(folder: Path, fit: int, global_step: int, checkpoint: dict[str, Any]) -> StoredCheckpoint:
    """Write a checkpoint of a running fit and remove older ones except the previous one.

    Raises:
        OSError: If it cannot be written; the previous ones still exist.

    """
    earlier, number = list_checkpoints(folder, fit), next_number(folder, fit)
    path = checkpoint_path(folder, fit, global_step, number)
    write_durably(checkpoint, path)
    for stored in earlier[:-1]:
        stored.path.unlink(missing_ok=True)
    _remove_orphaned_shards(folder, fit)
    return StoredCheckpoint(fit, global_step, number, path)


def store_final(folder: Path, fit: int, checkpoint: dict[str, Any]) -> Path:
    """Write the final state of a fit and remove its other checkpoints."""
    path = final_path(folder, fit)
    write_durably(checkpoint, path)
    for stored in list_checkpoints(folder, fit):
        stored.path.unlink(missing_ok=True)
    _remove_orphaned_shards(folder, fit)
    return path


def _remove_orphaned_shards(folder: Path, fit: int) -> None:
    """Remove the shards of removed checkpoints, and of checkpoints that a kill interrupted."""
    for shard in (folder / "checkpoints").glob(f"fit{fit}-*.rank*.shard"):
        if not shard.with_name(shard.name.partition(".rank")[0] + ".ckpt").exists():
            shard.unlink(missing_ok=True)


def load_checkpoint(path: Path, owner: Owner | None = None) -> dict[str, Any]:
    """Read a checkpoint with ``weights_only=True``, on the CPU.

    Args:
        path: The file.
        owner: The run and the fit that continue from it; None for any.

    Raises:
        RuntimeError: If the file, or one of its shards, is missing, truncated or damaged, or if it belongs to another
            run or fit; the message names it.

    """
    checkpoint = _load(path)
    shards = checkpoint.get(SHARDS_KEY, {})
    if "state_dict" not in checkpoint or not isinstance(shards, dict):
        raise RuntimeError(f"The checkpoint {path} is damaged: it does not contain a training state.")
    state = checkpoint.get(STATE_KEY)
    found = state.get(OWNER_KEY) if isinstance(state, dict) else None
    if owner is not None and found is not None and list(found) != list(owner):  # earlier versions wrote none
        raise RuntimeError(f"The checkpoint {path} belongs to another run or fit, and is not used")
    for name, size in shards.items():
        match = _SHARD.fullmatch(str(name)[len(path.stem) :])
        if match is None or not str(name).startswith(path.stem):
            raise RuntimeError(f"The checkpoint {path} is damaged: {name!r:.80} is not the name of a shard.")
        shard = shard_path(path, int(match[1]))
        if not shard.is_file() or shard.stat().st_size != size:
            raise RuntimeError(f"The checkpoint {path} is damaged: {shard} is missing or has another size.")
    return checkpoint


def load_shard(path: Path, rank: int) -> dict[str, Any]:
    """Read one rank's part of a checkpoint.

    Raises:
        RuntimeError: If the file is truncated or damaged; the message names it.

    """
    return _load(shard_path(path, rank))


def _load(path: Path) -> dict[str, Any]:
    try:
        checkpoint = load_tensors(path)
        restored: dict[str, Any] = from_plain(checkpoint) if isinstance(checkpoint, dict) else {}
    except DAMAGED as error:
        raise RuntimeError(
            f"The checkpoint {path} is damaged: {(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error
    if not isinstance(checkpoint, dict):
        raise RuntimeError(f"The checkpoint {path} is damaged: it does not contain a training state.")
    return restored


def load_tensors(path: Path) -> Any:
    """Read a file of ``torch.save`` with ``weights_only=True``, on the CPU.

    Raises:
        Exception: One of ``DAMAGED`` if it does not exist or cannot be read.

    """
    with open_regular(path) as file:
        if file.read(4) != b"PK\x03\x04":  # torch would read it as its legacy format
            raise ValueError("it does not start like a file of torch.save")
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)


def load_latest(
    folder: Path,
    fit: int,
    problems: Sequence[str] = (),
    but_not: Collection[Path] = (),
    owner: Owner | None = None,
) -> tuple[StoredCheckpoint, dict[str, Any], list[str]] | None:
    """Return the newest good checkpoint of a fit, its content, and the errors of newer ones; None without a checkpoint.

    Args:
        folder: The directory of the run.
        fit: Number of the fit.
        problems: Known errors of newer checkpoints.
        but_not: Paths of these checkpoints, which are skipped.
        owner: The run and the fit that continue; checkpoints of others are errors.

    Raises:
        RuntimeError: If there are checkpoints and none of them can be read.

    """
    problems = list(problems)
    for stored in reversed(list_checkpoints(folder, fit)):
        if stored.path in but_not:
            continue
        try:
            return stored, load_checkpoint(stored.path, owner), problems
        except RuntimeError as error:
            problems.append(str(error))
            log.warning("%s. Trying the previous one.", error)
    if problems:
        raise RuntimeError(
            f"No checkpoint of the run in {folder} can be read: {problems[0]}. Start from scratch with "
            "`lightning-green run --fresh -- ...`; the directory is kept under another name."
        )
    return None
