"""The attributes of objects, and of the objects in them, as texts by their path."""

from __future__ import annotations

import collections
import functools
import hashlib
import json
import logging
import pickle
import random
import threading
import types
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from lightning_green._lightning.namespaces import both
from lightning_green.resume.description import describe
from lightning_green.resume.object_walk import GENERATORS
from lightning_green.resume.plain_forms import form_of

_MAX_DEPTH, _MAX_ITEMS, _MAX_OBJECTS = 10, 200, 5000
_MAX_CHARACTERS = 120
_MAX_NAMED = 20
_NOT_ENTERED = (
    *(type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial),
    *(logging.Logger, threading.Thread, torch.device, torch.dtype, torch.Size, PurePath),
)
_LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Event, threading.Condition)


def object_graph(**roots: Any) -> dict[str, str]:
    """Return the attributes of objects as texts by their path; equal values have equal texts in every process.

    Weights and buffers of modules are left out. Tensors, arrays and random generators are digests.

    Args:
        roots: Objects by the first part of their path.

    Examples:
        >>> object_graph(module=types.SimpleNamespace(weight=0.5, names=["a"]))
        {'module.weight': '0.5', 'module.names[0]': '"a"'}

    """
    return dict(_walk(roots))


def digest(value: Any) -> str:
    """Return a digest of a value and of all that it contains, such as a batch."""
    content = json.dumps(object_graph(value=value), sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def _walk(roots: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    seen: set[int] = set()
    waiting = collections.deque((path, value, 0) for path, value in roots.items())
    while waiting and len(seen) < _MAX_OBJECTS:
        path, value, depth = waiting.popleft()
        if isinstance(value, GENERATORS):
            yield path, _generator(value)
            continue
        parts = None if depth > _MAX_DEPTH else _parts(value)
        if parts is None:
            text = json.dumps(describe(_state(value)))
            yield path, text if len(text) <= _MAX_CHARACTERS else _digest_of(text.encode())
        elif id(value) not in seen:
            seen.add(id(value))
            waiting.extend((f"{path}{name}", part, depth + 1) for name, part in parts)


def _parts(value: Any) -> list[tuple[str, Any]] | None:
    """Return the parts of an object or a container with their names; None for a value without parts."""
    if isinstance(value, (*_NOT_ENTERED, *both(pl.Trainer), *_LOCKS, torch.Tensor, np.ndarray, np.generic, str, bytes)):
        return None
    if _is_of_pandas(value):
        return None
    if isinstance(value, Mapping):
        items = [(f"[{key!r}]", item) for key, item in value.items()]
        return items if _has_objects(value.values()) and len(items) <= _MAX_ITEMS else None
    if isinstance(value, (list, tuple, collections.deque)):
        items = [(f"[{index}]", item) for index, item in enumerate(value)]
        return items if _has_objects(value) and len(items) <= _MAX_ITEMS else None
    if type(value).__module__.startswith("lightning_green.resume."):  # wraps a sampler or a `collate_fn` of the script
        inner = getattr(value, "inner", None)
        return [] if inner is None else [("", inner)]
    attributes = getattr(value, "__dict__", None)
    if attributes is None or isinstance(value, (set, frozenset)):
        return None
    if isinstance(value, torch.nn.Module):
        children = [(f".{name}", child) for name, child in value.named_children()]
        own = [(f".{name}", item) for name, item in attributes.items() if name not in _module_attributes()]
        return [(".training", value.training), *own, *children]
    return [(f".{name}", item) for name, item in attributes.items()]


def _has_objects(values: Any) -> bool:
    """Return whether a container holds anything but plain values, or so few values that each may have a path."""
    if 0 < len(values) <= _MAX_NAMED:
        return True
    plain = (str, bytes, int, float, complex, bool, type(None))
    return any(not isinstance(value, plain) for value in values)


@functools.cache
def _module_attributes() -> frozenset[str]:
    """Return the attributes of a module that belong to PyTorch and Lightning; Lightning changes some at each call."""
    return frozenset({*vars(torch.nn.Module()), *vars(pl.LightningModule()), "forward"})


def _is_of_pandas(value: Any) -> bool:
    """Return whether a value is a table, a column or an index of pandas, which caches properties in attributes."""
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "to_numpy")


def _state(value: Any) -> Any:
    """Return an iterator's position and the content of a table with their class, and any other value itself."""
    if _is_of_pandas(value):
        return [type(value).__name__, value.to_numpy().tolist()]
    form = form_of(value) if isinstance(value, Iterator) else None
    return value if form is None else [type(value).__name__, form.encode(value)]


def _generator(generator: Any) -> str:
    if isinstance(generator, torch.Generator):
        state: Any = generator.get_state().numpy()
    elif isinstance(generator, random.Random):
        state = generator.getstate()
    elif isinstance(generator, np.random.RandomState):
        state = generator.get_state()
    else:
        state = generator.bit_generator.state
    return f"{type(generator).__name__} {_digest_of(pickle.dumps(state))}"


def _digest_of(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
