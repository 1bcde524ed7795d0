"""Values of attributes: whether they have changed, as data for a checkpoint, and set in place."""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from lightning_green.resume.object_generators import set_generator_state
from lightning_green.resume.object_walk import GENERATORS
from lightning_green.resume.plain_data import NotPlainError, to_plain
from lightning_green.resume.plain_forms import form_of

SCALARS = (bool, int, float, str, type(None))
"""Classes of numbers and strings."""
_HASHABLE = {bool, int, float, complex, str, bytes, type(None)}
_SAMPLES = 1000
"""Number of elements of a longer container that are compared."""
_MAX_DEPTH = 8


def tensors_in(value: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    """Return the tensors in a value: itself, or those in nested containers."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple, set, frozenset, dict, collections.deque)) and depth < _MAX_DEPTH:
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(item, depth + 1)


def _map_tensors(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    # `apply_to_collection` of Lightning loses the length of a deque, and calls constructors of the script's classes.
    if isinstance(value, torch.Tensor):
        return function(value)
    if type(value) in (list, tuple):
        return type(value)(_map_tensors(item, function) for item in value)
    if type(value) is collections.deque:
        return collections.deque((_map_tensors(item, function) for item in value), value.maxlen)
    if type(value) in (dict, collections.OrderedDict):
        return type(value)((key, _map_tensors(item, function)) for key, item in value.items())
    return value


def to_portable(value: Any) -> dict[str, Any]:
    """Return a value with its tensors on the CPU, and whether each of them was on another device.

    Raises:
        NotPlainError: If the value cannot be saved.

    """
    moved: list[bool] = []

    def to_cpu(tensor: torch.Tensor) -> torch.Tensor:
        moved.append(tensor.device.type != "cpu")
        return tensor.detach().cpu().clone()

    content = _map_tensors(value, to_cpu)
    to_plain(content)
    if len(moved) < sum(1 for _ in tensors_in(value)):
        raise NotPlainError("", "contains tensors in a container of another kind")
    return {"value": content, "moved": moved}


def from_portable(item: dict[str, Any], device: torch.device) -> Any:
    """Return the value that was passed to ``to_portable``, with its tensors on the device that they were on.

    Args:
        item: The result of ``to_portable``.
        device: Device of the tensors that were not on the CPU.

    """
    moved = iter(item["moved"])
    return _map_tensors(item["value"], lambda tensor: tensor.to(device) if next(moved) else tensor)


def fingerprint(value: Any, depth: int = 0) -> int:
    """Return a number that changes, nearly always, if the value does. It is valid in this process only."""
    return hash((type(value).__name__, _content(value, depth)))


def _content(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return id(value)
    if isinstance(value, torch.Tensor):
        return id(value), None if value.is_inference() else value._version
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        return repr(value)
    if isinstance(value, np.ndarray):
        return id(value) if value.dtype.hasobject else (value.shape, _bytes(value))
    if isinstance(value, (set, frozenset)):
        return frozenset(fingerprint(item, depth + 1) for item in value)
    if isinstance(value, dict):
        return _elements(list(value.items()), depth)
    if isinstance(value, (list, tuple, collections.deque)):
        return _elements(value, depth)
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if type(value) is random.Random:
        return value.getstate()
    if isinstance(value, np.generic):
        return value.dtype.str, value.tobytes()
    form = form_of(value)
    return id(value) if form is None else fingerprint(form.encode(value), depth + 1)


def as_text(value: Any, depth: int = 0) -> str:
    """Return a number, a string or a small container of them as text; of other objects only the class."""
    kind = type(value)
    if kind in (bool, int, float, complex, str, type(None)):
        return repr(value)
    if kind in (list, tuple, dict) and len(value) <= _SAMPLES and depth < _MAX_DEPTH:
        items = [item for pair in value.items() for item in pair] if kind is dict else value
        return f"{kind.__name__}({', '.join(as_text(item, depth + 1) for item in items)})"
    return kind.__qualname__


def _elements(values: Any, depth: int) -> tuple[int, ...]:
    length = len(values)
    if length > _SAMPLES:
        values = (*itertools.islice(values, 0, None, -(-length // _SAMPLES)), values[-1])
    if _HASHABLE.issuperset(map(type, values)):
        return length, hash(tuple(values))  # quickly, as most lists contain numbers or strings
    return length, *(fingerprint(item, depth + 1) for item in values)


def _bytes(array: np.ndarray[Any, Any]) -> bytes:
    flat = array.reshape(-1)
    return flat[:: max(1, flat.size // (_SAMPLES * _SAMPLES))].tobytes()


def assign(current: Any, saved: Any) -> Any:
    """Return ``current`` with the content of ``saved`` if it can be set in place, as others may refer to it.

    Otherwise return ``saved``. Views of a part and the elements of containers are never written to: they may be samples
    of a dataset that the attribute refers to at this moment.
    """
    if type(current) is not type(saved):
        return saved
    if isinstance(current, torch.Tensor):
        if (current.shape, current.dtype) == (saved.shape, saved.dtype) and not current.is_inference():
            with torch.no_grad(), suppress(RuntimeError):  # an expanded or a sparse tensor cannot be written to
                if current.untyped_storage().nbytes() == current.nbytes:  # no view of a part
                    return current.copy_(saved)
    elif isinstance(current, np.ndarray):
        writable = current.flags.writeable and current.base is None
        if writable and (current.shape, current.dtype) == (saved.shape, saved.dtype):
            current[...] = saved
            return current
    elif isinstance(current, GENERATORS):
        set_generator_state(current, saved)
        return current
    elif type(current) is list:
        same = len(current) == len(saved)
        current[:] = [_element(old, new) for old, new in zip(current, saved, strict=True)] if same else saved
        return current
    elif type(current) in (dict, collections.OrderedDict):
        content = {key: _element(current.get(key), item) for key, item in saved.items()}
        current.clear()
        current.update(content)
        return current
    elif type(current) in (set, collections.deque):
        current.clear()
        current.__class__.__dict__["update" if type(current) is set else "extend"](current, saved)
        return current
    return saved


def _element(current: Any, saved: Any) -> Any:
    return assign(current, saved) if isinstance(current, GENERATORS) else saved
