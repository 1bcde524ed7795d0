"""The parts of Lightning's checkpoint in which a rank differs from rank 0, whose checkpoint is the one that is saved.

For example the positions of the loops where streams of different length put the ranks into different epochs, the state
of a DataModule, or the weights of local SGD between two averages.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from lightning_green.resume.plain_data import to_plain

_BY_ITEM = ("callbacks", "state_dict", "optimizer_states")
_OF_EACH_RANK = ("callbacks", "state_dict")
_LARGE = ("state_dict", "optimizer_states")
_CHUNK_BYTES = 1 << 26
"""Size of the pieces in which a tensor is copied to the CPU for its digest."""
Part = tuple[list[Any], Any]
"""Keys that lead to a part of a checkpoint, and its value."""
Digest = tuple[list[Any], str]
"""Keys that lead to a part of a checkpoint, and a digest of its value."""


def _parts(checkpoint: dict[str, Any]) -> Iterator[Part]:
    """Yield the parts that are compared: every entry, and every item of the containers of callbacks and tensors."""
    for key, value in checkpoint.items():
        if key in _BY_ITEM:
            for name, item in value.items() if isinstance(value, dict) else enumerate(value):
                if not (key == "optimizer_states" and not item):  # of a sharded optimizer, which rank 0 saves
                    yield [key, name], item
        else:
            yield [key], value


def part_digests(checkpoint: dict[str, Any]) -> list[Digest]:
    """Return the keys and a digest of each part of a checkpoint."""
    return [(keys, value_digest(value)) for keys, value in _parts(checkpoint)]


def differing_parts(
    checkpoint: dict[str, Any], own: list[Digest], reference: list[Digest]
) -> tuple[list[Part], list[Part]]:
    """Return the parts whose digests differ from those of rank 0.

    Args:
        checkpoint: The checkpoint of this rank.
        own: The result of ``part_digests`` on this rank.
        reference: The result of ``part_digests`` on rank 0.

    Returns:
        The parts without tensors of the model, and those of the model and its optimizers.

    """
    known = {tuple(keys): digest for keys, digest in reference}
    found = [
        part for part, (keys, digest) in zip(_parts(checkpoint), own, strict=True) if known.get(tuple(keys)) != digest
    ]
    return [one for one in found if one[0][0] not in _LARGE], [one for one in found if one[0][0] in _LARGE]


def missing_parts(checkpoint: dict[str, Any], reference: list[Digest]) -> list[list[Any]]:
    """Return the keys of the items of callbacks and of the model that rank 0 has and this rank does not have.

    Other entries that only rank 0 has are for all ranks: a hook may write them on rank 0 and read them on every rank.

    Args:
        checkpoint: The checkpoint of this rank.
        reference: The result of ``part_digests`` on rank 0.

    """
    return [keys for keys, _ in reference if keys[0] in _OF_EACH_RANK and keys[1] not in checkpoint[keys[0]]]


def remove_parts(checkpoint: dict[str, Any], missing: list[list[Any]]) -> None:
    """Remove the result of ``missing_parts`` from a checkpoint in place."""
    for container, name in missing:
        checkpoint[container].pop(name, None)


def set_parts(checkpoint: dict[str, Any], parts: list[Part]) -> None:
    """Set parts of a checkpoint in place."""
    for keys, value in parts:
        owner: Any = checkpoint
        for key in keys[:-1]:
            owner = owner.setdefault(key, {})
        owner[keys[-1]] = value


def plain_parts(parts: list[Part]) -> list[Part]:
    """Return parts of a checkpoint as plain data.

    Raises:
        NotPlainError: If a part cannot be saved.

    """
    return [(keys, to_plain(value, f"{keys[0]}{''.join(f'[{key!r}]' for key in keys[1:])}")) for keys, value in parts]


def value_digest(value: Any) -> str:
    """Return a digest of a value: a container of tensors, numbers, strings and other objects."""
    total = hashlib.blake2b(digest_size=16)
    _add(total, value)
    return total.hexdigest()


def _add(total: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        total.update(f"{value.dtype} {'' if is_lazy(value) else tuple(value.shape)};".encode())
        for content in _contents(value):
            for chunk in torch.split(content.view(torch.uint8), _CHUNK_BYTES):
                total.update(chunk.cpu().numpy())
    elif type(value) in (list, tuple):
        total.update(f"{len(value)} items:".encode())
        for item in value:
            _add(total, item)
    elif isinstance(value, dict):
        total.update(f"{len(value)} keys:".encode())
        for key, item in value.items():
            total.update(repr(key).encode())
            _add(total, item)
    else:
        try:
            total.update(pickle.dumps(value))
        except Exception:  # noqa: BLE001 - `why_not_saved` reports objects that cannot be saved
            total.update(type(value).__qualname__.encode())


def _contents(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return flat tensors that contain all elements of a tensor; an empty list if it has none in memory."""
    if is_lazy(tensor) or tensor.device.type == "meta":
        return []
    parts = [tensor.detach()]
    if tensor.is_quantized:
        parts = [tensor.dequantize()]
    elif tensor.layout != torch.strided:
        sparse = parts[0].to_sparse_coo().coalesce()  # type: ignore[no-untyped-call]
        parts = [sparse.indices(), sparse.values()]
    return [flat for part in parts if (flat := part.contiguous().reshape(-1)).numel()]
