"""Random generators and iterators that objects of the script keep, such as datasets, their transforms and samplers."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from lightning_green.resume.object_walk import GENERATORS, find

Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


def find_generators(*owners: Any, with_datasets: bool = True) -> dict[str, Generator]:
    """Return the generators in the attributes of objects, and in what these attributes contain, by their path.

    Each is found once, on the shortest path.

    Args:
        owners: The objects. Containers of more than 1,000 elements are not searched.
        with_datasets: Whether to search datasets, to which samplers refer.

    """
    return find(lambda value: isinstance(value, GENERATORS), *owners, with_datasets=with_datasets)


def find_iterators(*owners: Any, with_datasets: bool = True) -> dict[str, Iterator[Any]]:
    """Return the iterators of Python and ``itertools`` in the attributes of objects by their path; see above.

    An object that keeps one, such as an endless stream, continues in the next pass where this one ends, and at its
    beginning in another process.
    """
    return find(is_iterator, *owners, with_datasets=with_datasets)


def is_iterator(value: Any) -> bool:
    """Return whether a value is an iterator of Python or ``itertools``."""
    return isinstance(value, Iterator) and type(value).__module__ in ("builtins", "itertools")


def copy_generator(generator: Generator) -> Generator:
    """Return a generator with the same state."""
    return generator.clone_state() if isinstance(generator, torch.Generator) else copy.deepcopy(generator)


def generator_states(generators: dict[str, Generator]) -> dict[str, Any]:
    """Return copies of the result of ``find_generators``, which have its states."""
    return {path: copy_generator(one) for path, one in generators.items()}


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
