"""Values of attributes: whether they have changed, as data for a checkpoint, and set in place."""

from __future__ import annotations

import collections
import functools
import itertools
import random
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch

from lightning_green.resume.object_generators import set_generator_state
from lightning_green.resume.object_walk import GENERATORS
from lightning_green.resume.plain_data import NotPlainError, to_plain
from lightning_green.resume.plain_forms import form_of

SCALARS = (bool, int, float, str, type(None))
"""Classes of numbers and strings."""
_HASHABLE = {bool, int, float, complex, str, bytes, type(None)}
_ARRAYS = {int: "q", float: "d"}
_SAMPLES = 1000
"""Number of elements of a longer container that are compared."""
_MAX_DEPTH = 8
_CHANGEABLE = (torch.Tensor, np.ndarray, list, dict, set, collections.deque, *GENERATORS)
_numbers: dict[int, tuple[weakref.ref[Any], int]] = {}
_next_number = itertools.count(1, 2)  # addresses are even


def number_of(value: Any) -> int:
    """Return a number that no other object has, also none that gets the address of this one later.

    It is the address for objects that cannot be referred to weakly, such as lists.
    """
    key = id(value)
    found = _numbers.get(key)
    if found is not None and found[0]() is value:
        return found[1]
    try:
        reference = weakref.ref(value, functools.partial(_forget, key))
    except TypeError:
        return key
    number = next(_next_number)
    _numbers[key] = reference, number
    return number


def _forget(key: int, reference: weakref.ref[Any]) -> None:
    found = _numbers.get(key)
    if found is not None and found[0] is reference:
        del _numbers[key]


class Reference:
    """Refers to an object weakly; to a list or a dict until something else is found in its place."""

    def __init__(self, value: Any) -> None:
        self._get: Callable[[], Any]
        try:
            self._get = weakref.ref(value)
        except TypeError:
            self._get = lambda: value

    def refers_to(self, value: Any) -> bool:
        """Return whether a value is the object."""
        if self._get() is value:
            return True
        if not isinstance(self._get, weakref.ref):
            self._get = object  # a new one each time
        return False


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
        try:
            return number_of(value), value._version
        except RuntimeError:  # an inference tensor has none
            return number_of(value), None
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        return repr(value)
    if isinstance(value, np.ndarray):
        return number_of(value) if value.dtype.hasobject else (value.shape, _bytes(value))
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
    return number_of(value) if form is None else fingerprint(form.encode(value), depth + 1)


def as_text(value: Any, depth: int = 0) -> str:
    """Return a number, a string or a small container of them as text; of other objects only the class."""
    kind = type(value)
    if kind in (bool, int, float, complex, str, type(None)):
        return repr(value)
    if kind in (list, tuple, dict) and len(value) <= _SAMPLES and depth < _MAX_DEPTH:
        items = [item for pair in value.items() for item in pair] if kind is dict else value
        return f"{kind.__name__}({', '.join(as_text(item, depth + 1) for item in items)})"
    return kind.__qualname__


def _elements(values: Any, depth: int) -> tuple[Any, ...]:
    length = len(values)
    if length > _SAMPLES and (code := _ARRAYS.get(type(values[0]))) is not None:
        with suppress(OverflowError, TypeError):  # other elements too
            return length, array(code, values).tobytes()  # all of them, as of a list of indices
    if length > _SAMPLES:
        values = (*itertools.islice(values, 0, None, -(-length // _SAMPLES)), values[-1])
    if _HASHABLE.issuperset(map(type, values)):
        return length, repr(values)  # quickly, as most lists contain numbers or strings; -1 and -2 have equal hashes
    return length, *(fingerprint(item, depth + 1) for item in values)


def _bytes(array: np.ndarray[Any, Any]) -> bytes:
    flat = array.reshape(-1)
    return flat[:: max(1, flat.size // (_SAMPLES * _SAMPLES))].tobytes()


class Identity(NamedTuple):
    """Which object a value is at one time, and which objects its elements are by key or index."""

    value: Reference
    elements: dict[Any, Reference]


def identity(value: Any) -> Identity:
    """Return which objects a value and its elements are; of elements that can be changed in place."""
    elements = {key: Reference(one) for key, one in _items(value) if isinstance(one, _CHANGEABLE)}
    return Identity(Reference(value), elements)


def same_elements(value: Any, before: Identity | None) -> list[int] | None:
    """Return the positions of the elements that are the same objects as before; None if the value is another object."""
    if before is None or not before.value.refers_to(value):
        return None
    return [number for number, (key, one) in enumerate(_items(value)) if _is_element(before, key, one)]


def _is_element(before: Identity, key: Any, value: Any) -> bool:
    reference = before.elements.get(key)
    return reference is not None and reference.refers_to(value)


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    if type(value) in (list, dict, collections.OrderedDict) and len(value) <= _SAMPLES:
        return enumerate(value) if type(value) is list else value.items()
    return ()


def assign_same(current: Any, saved: Any, same: Sequence[int] | None, created: Identity | None) -> Any:
    """Return ``saved``, or the object of the script with its content, to which others may refer.

    Written to are only objects that were changed in place: an attribute may refer to another sample of a dataset now
    than at the creation, and the sample is not to be changed.

    Args:
        current: The value in this process.
        saved: The value to set.
        same: The result of ``same_elements`` where the value was saved.
        created: Identity of the value that the script has created in this process.

    """
    if same is None or created is None or not created.value.refers_to(current):
        return saved
    keys = [key for key, _ in _items(saved)]
    here = dict(_items(current))
    written = {keys[number] for number in same if number < len(keys)}
    return assign(current, saved, {key for key in written if key in here and _is_element(created, key, here[key])})


def assign(current: Any, saved: Any, written: Set[Any] = frozenset()) -> Any:
    """Return ``current`` with the content of ``saved`` if it can be set in place, else ``saved``.

    Args:
        current: The value in this process.
        saved: The value to set.
        written: Keys or indices of the elements that are set in place as well; the others are replaced.

    """
    if type(current) is not type(saved):
        return saved
    if isinstance(current, torch.Tensor):
        if (current.shape, current.dtype) == (saved.shape, saved.dtype) and not current.is_inference():
            with torch.no_grad(), suppress(RuntimeError):  # an expanded tensor cannot be written to
                return current.copy_(saved)
    elif isinstance(current, np.ndarray):
        if (current.shape, current.dtype) == (saved.shape, saved.dtype) and current.flags.writeable:
            current[...] = saved
            return current
    elif isinstance(current, GENERATORS):
        set_generator_state(current, saved)
        return current
    elif type(current) is list:
        before = dict(enumerate(current))
        current[:] = [_element(before.get(number), one, number in written) for number, one in enumerate(saved)]
        return current
    elif type(current) in (dict, collections.OrderedDict):
        content = {key: _element(current.get(key), one, key in written) for key, one in saved.items()}
        current.clear()
        current.update(content)
        return current
    elif type(current) in (set, collections.deque):
        current.clear()
        current.__class__.__dict__["update" if type(current) is set else "extend"](current, saved)
        return current
    return saved


def _element(current: Any, saved: Any, in_place: bool) -> Any:
    return assign(current, saved) if in_place or isinstance(current, GENERATORS) else saved
