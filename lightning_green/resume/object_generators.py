"""Random generators and iterators that objects of the script keep, such as datasets, their transforms and samplers."""

from __future__ import annotations

import collections
import copy
import random
import types
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import Dataset

from lightning_green._lightning.namespaces import both

Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random

KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_CONTAINERS = (list, tuple, dict, collections.deque)
_NOT_ENTERED = (
    *(torch.Tensor, np.ndarray, str, bytes, int, float, complex, type, types.ModuleType, types.FunctionType),
    *(pl.Trainer, pl.LightningModule, pl.LightningDataModule),
)
_MAX_DEPTH, _MAX_LENGTH, _MAX_OBJECTS = 8, 1000, 20_000


def find_generators(*owners: Any, with_datasets: bool = True) -> dict[str, Generator]:
    """Return the generators in the attributes of objects, and in what these attributes contain, by their path.

    Each is found once, on the shortest path.

    Args:
        owners: The objects. Containers of more than 1,000 elements are not searched.
        with_datasets: Whether to search datasets, to which samplers refer.

    """
    return _find(owners, lambda value: isinstance(value, KINDS), with_datasets)


def find_iterators(*owners: Any, with_datasets: bool = True) -> dict[str, Iterator[Any]]:
    """Return the iterators of Python and ``itertools`` in the attributes of objects by their path; see above.

    An object that keeps one, such as an endless stream, continues in the next pass where this one ends, and at its
    beginning in another process.
    """
    return _find(owners, _is_iterator, with_datasets)


def _is_iterator(value: Any) -> bool:
    return isinstance(value, Iterator) and type(value).__module__ in ("builtins", "itertools")


def _find(owners: tuple[Any, ...], wanted: Callable[[Any], bool], with_datasets: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    seen: set[int] = set()
    not_entered = both(*_NOT_ENTERED)
    waiting = collections.deque((str(number), owner, 0) for number, owner in enumerate(owners))
    while waiting and len(seen) < _MAX_OBJECTS:
        path, value, depth = waiting.popleft()
        if id(value) in seen or depth > _MAX_DEPTH or (isinstance(value, Dataset) and not with_datasets):
            continue
        seen.add(id(value))
        if wanted(value):
            found[path] = value
        elif isinstance(value, _CONTAINERS):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            if len(value) <= _MAX_LENGTH:
                waiting.extend((f"{path}[{key!r}]", item, depth + 1) for key, item in pairs)
        elif value is not None and not isinstance(value, not_entered):
            attributes = getattr(value, "__dict__", {})
            waiting.extend((f"{path}.{name}", item, depth + 1) for name, item in attributes.items())
    return found


def generator_states(generators: dict[str, Generator]) -> dict[str, Any]:
    """Return copies of the result of ``find_generators``, which have its states."""
    return {
        path: one.clone_state() if isinstance(one, torch.Generator) else copy.deepcopy(one)
        for path, one in generators.items()
    }


def set_generator_states(generators: dict[str, Generator], states: dict[str, Any]) -> None:
    """Set the result of ``generator_states``; a state of another path or kind is ignored."""
    for path, generator in generators.items():
        if path in states:
            set_generator_state(generator, states[path])


def set_generator_state(generator: Generator, state: Any) -> None:
    """Set the state of a generator to that of another one of its kind; one of another kind is ignored."""
    if isinstance(generator, torch.Generator):
        if isinstance(state, torch.Generator):
            generator.set_state(state.get_state())
    elif isinstance(generator, np.random.Generator):
        if isinstance(state, np.random.Generator) and type(state.bit_generator) is type(generator.bit_generator):
            generator.bit_generator.state = state.bit_generator.state
    elif isinstance(generator, np.random.RandomState):
        if isinstance(state, np.random.RandomState):
            generator.set_state(state.get_state(legacy=False))
    elif isinstance(state, random.Random):
        generator.setstate(state.getstate())
