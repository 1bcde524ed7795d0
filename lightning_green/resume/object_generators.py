"""Random generators that objects of the script keep, such as datasets, their transforms and samplers."""

from __future__ import annotations

import collections
import copy
import random
import types
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import Dataset

Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random

_KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_CONTAINERS = (list, tuple, dict, collections.deque)
_NOT_ENTERED = (
    *(torch.Tensor, np.ndarray, str, bytes, int, float, complex, type, types.ModuleType, types.FunctionType),
    *(pl.Trainer, pl.LightningModule, pl.LightningDataModule),
)
_MAX_DEPTH, _MAX_LENGTH, _MAX_OBJECTS = 8, 1000, 20_000


def find_generators(*owners: Any, with_datasets: bool = True) -> list[Generator]:
    """Return the generators in the attributes of objects, and in what these attributes contain, each once.

    Args:
        owners: The objects. Containers of more than 1,000 elements are not searched.
        with_datasets: Whether to search datasets, to which samplers refer.

    """
    found: list[Generator] = []
    seen: set[int] = set()
    waiting: collections.deque[tuple[Any, int]] = collections.deque((owner, 0) for owner in owners)
    while waiting and len(seen) < _MAX_OBJECTS:
        value, depth = waiting.popleft()
        if id(value) in seen or depth > _MAX_DEPTH or (isinstance(value, Dataset) and not with_datasets):
            continue
        seen.add(id(value))
        if isinstance(value, _KINDS):
            found.append(value)
        elif isinstance(value, _CONTAINERS):
            items = list(value.values() if isinstance(value, dict) else value)
            waiting.extend((item, depth + 1) for item in (items if len(items) <= _MAX_LENGTH else ()))
        elif value is not None and not isinstance(value, _NOT_ENTERED):
            waiting.extend((item, depth + 1) for item in getattr(value, "__dict__", {}).values())
    return found


def generator_state(generator: Generator) -> Any:
    """Return the state of a generator, of its own kind."""
    return generator.get_state() if isinstance(generator, torch.Generator) else copy.deepcopy(generator)


def set_generator_state(generator: Generator, state: Any) -> None:
    """Set the result of ``generator_state``; a state of another kind is ignored."""
    if isinstance(generator, torch.Generator):
        if isinstance(state, torch.Tensor):
            generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        if isinstance(state, np.random.Generator) and type(state.bit_generator) is type(generator.bit_generator):
            generator.bit_generator.state = state.bit_generator.state
    elif isinstance(generator, np.random.RandomState):
        if isinstance(state, np.random.RandomState):
            generator.set_state(state.get_state(legacy=False))
    elif isinstance(state, random.Random):
        generator.setstate(state.getstate())
