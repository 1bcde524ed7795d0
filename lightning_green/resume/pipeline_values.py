"""Values in the state of a data pipeline, as data in which generators and open files are named."""

from __future__ import annotations

import collections
import io
from typing import Any

import numpy as np
import torch

from lightning_green.resume.attribute_values import SCALARS, tensors_in
from lightning_green.resume.object_walk import CONTAINERS, GENERATORS
from lightning_green.resume.plain_data import NotPlainError, from_plain, to_plain
from lightning_green.resume.plain_forms import form_of

_GENERATOR = "lightning_green/generator"
_FILE = "lightning_green/position"
_MAX_BYTES = 2**28
"""Size of the largest attribute that is saved."""


class FilePosition:
    """The position in an open file."""

    def __init__(self, at: int) -> None:
        self.at = at


def copy_value(value: Any, paths: dict[int, str], covered: set[int]) -> Any:
    """Return a copy of a value, in which generators are named by their path.

    Raises:
        NotPlainError: If the value cannot be saved.

    """
    if isinstance(value, io.IOBase):
        if not (value.readable() and value.seekable()):
            raise NotPlainError("", "is a file that has no position")
        return {_FILE: value.tell()}
    if _size(value) > _MAX_BYTES:
        raise NotPlainError("", f"is larger than {_MAX_BYTES >> 20} MiB")
    named: set[int] = set()
    content = _with_names(value, paths, named)
    copied = from_plain(to_plain(_cloned(content)))
    covered |= named
    return copied


def _with_names(value: Any, paths: dict[int, str], named: set[int], depth: int = 0) -> Any:
    if isinstance(value, GENERATORS) and id(value) in paths:
        named.add(id(value))
        return {_GENERATOR: paths[id(value)]}
    if type(value) in (list, tuple) and depth < 8 and any(_may_name(one) for one in value):
        return type(value)(_with_names(one, paths, named, depth + 1) for one in value)
    if type(value) is dict and depth < 8 and any(_may_name(one) for one in value.values()):
        return {key: _with_names(one, paths, named, depth + 1) for key, one in value.items()}
    return value


def _may_name(value: Any) -> bool:
    return isinstance(value, (*GENERATORS, *CONTAINERS))


def _cloned(value: Any) -> Any:
    """Return a value with copies of its tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if type(value) in (list, tuple) and any(True for _ in tensors_in(value)):
        return type(value)(_cloned(one) for one in value)
    if type(value) is dict and any(True for _ in tensors_in(value)):
        return {key: _cloned(one) for key, one in value.items()}
    if isinstance(value, CONTAINERS) and not isinstance(value, (list, tuple, dict)):
        return type(value)((_cloned(one) for one in value), value.maxlen)
    return value


def restored_value(value: Any, generators: dict[str, Any]) -> Any:
    """Return a copy of the result of ``copy_value``, with the generators of this process."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        if _GENERATOR in value:
            return generators.get(value[_GENERATOR])
        if _FILE in value:
            return FilePosition(value[_FILE])
        if type(value) in (dict, collections.OrderedDict):
            return type(value)((key, restored_value(one, generators)) for key, one in value.items())
    if type(value) in (list, tuple):
        return type(value)(restored_value(one, generators) for one in value)
    if isinstance(value, SCALARS) or form_of(value) is None:
        return value
    return _cloned(from_plain(to_plain(value)))


def _size(value: Any) -> int:
    """Return about how many bytes the tensors and arrays in a value and its elements take."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    total = sum(one.numel() * one.element_size() for one in tensors_in(value))
    if isinstance(value, dict):
        total += sum(one.nbytes for one in value.values() if isinstance(one, np.ndarray))
    elif isinstance(value, CONTAINERS):
        total += 8 * len(value) + sum(one.nbytes for one in value if isinstance(one, np.ndarray))
    return total
