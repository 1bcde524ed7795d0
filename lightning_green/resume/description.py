"""Descriptions of settings by content, of the types that JSON has.

Two processes describe equal settings equally: recent time stamps, random identifiers, temporary paths and memory
addresses are replaced.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import json
import math
import re
import sys
import time
import types
import uuid
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor
from torch.nn.parameter import is_lazy

from lightning_green.resume.stable_text import IDENTIFIER, TIME, is_recent, is_recent_on_timer, stable_text

_OMITTED = "<...>"

_MAX_DEPTH = 12
_MAX_VALUES = 1_000_000  # described values in total; structures may share their parts many times
_MAX_ELEMENTS = 64  # longer sequences are described by a digest
_MAX_ENTRIES = 1000  # larger mappings are described by a digest
_MAX_DESCRIBED_ELEMENTS = 100_000  # the digest of a longer sequence is the digest of a sample
_MAX_CHARACTERS = 200
_MAX_HASHED_ELEMENTS = 10_000_000  # the digest of a larger tensor is the digest of a sample
_SAMPLE = 1_000_000

_FUNCTION_TYPES = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    functools._lru_cache_wrapper,
    np.ufunc,
)


def describe(value: Any) -> Any:
    """Return a description of a value by its content, made of the types that JSON has.

    Equal settings have equal descriptions in every process, and a description survives ``json.loads(json.dumps(...))``
    unchanged. Objects of unknown classes are described by their class only, and none of their methods is called.

    Args:
        value: Any object.

    Returns:
        None, a bool, an int, a finite float, a string, or lists and dicts of them.

    Examples:
        >>> describe({"lr": np.float64(0.1), "betas": (0.9, 0.999), "loss": torch.nn.CrossEntropyLoss()})
        {'lr': 0.1, 'betas': [0.9, 0.999], 'loss': 'module torch.nn.modules.loss.CrossEntropyLoss'}
        >>> describe(["resnet50", "runs/Nov26_12-44-59", datetime.datetime.now()])
        ['resnet50', 'runs/<time>', '<time>']

    """
    return _describe(value, _Walk())


class _Walk:
    """The containers around the described value, and the number of values that may still be described."""

    def __init__(self) -> None:
        self.around: list[int] = []
        self.values_left = _MAX_VALUES


def _describe(value: Any, walk: _Walk) -> Any:
    kind = type(value)  # not `value.__class__`, which a proxy may compute
    walk.values_left -= 1
    if walk.values_left < 0:
        return _OMITTED
    try:
        for types_, described in _SIMPLE:
            if issubclass(kind, types_):
                return described(value)
        entries = _container(value, kind)
        if entries is None:
            return _object(kind)
        if id(value) in walk.around or len(walk.around) >= _MAX_DEPTH:
            return _OMITTED
        walk.around.append(id(value))
        try:
            if isinstance(entries, dict):
                return _entries(entries, kind, walk)
            return _elements(entries, kind, walk)
        finally:
            walk.around.pop()
    except Exception:  # noqa: BLE001 - a broken object in the settings must not stop a training
        return _object(kind)


def _container(value: Any, kind: type) -> dict[Any, Any] | list[Any] | None:
    """Return the content of a container; None for any other object."""
    if issubclass(kind, functools.partial):
        content: dict[Any, Any] = {"partial": value.func, "args": value.args, "keywords": value.keywords}
        return {name: part for name, part in content.items() if part}
    if issubclass(kind, (set, frozenset)):
        return list(value)
    if issubclass(kind, tuple):
        elements = list(tuple.__iter__(value))
        names = getattr(kind, "_fields", None)
        return elements if names is None else dict(zip(names, elements, strict=True))
    if issubclass(kind, list):
        return list(list.__iter__(value))
    if issubclass(kind, collections.deque):
        return list(value)
    if issubclass(kind, dict):
        return dict.copy(value)  # does not hash the keys again
    if kind.__module__.startswith("omegaconf."):
        return _omegaconf(value)
    if issubclass(kind, Mapping):
        return dict(value.items())
    if issubclass(kind, (Namespace, types.SimpleNamespace)):
        return dict(vars(value))
    if dataclasses.is_dataclass(kind):
        return _fields(value, (field.name for field in dataclasses.fields(kind)))
    if hasattr(kind, "__attrs_attrs__"):
        return _fields(value, (field.name for field in kind.__attrs_attrs__))
    if callable(getattr(kind, "model_dump", None)):  # pydantic
        dumped = value.model_dump()
        return dumped if isinstance(dumped, dict) else None
    return None


def _omegaconf(value: Any) -> dict[Any, Any] | list[Any] | None:
    """Return the content of an OmegaConf container, with the interpolations resolved where that is possible."""
    to_container = sys.modules["omegaconf"].OmegaConf.to_container
    try:
        content = to_container(value, resolve=True)
    except Exception:  # noqa: BLE001 - an interpolation may refer to a missing value or call any resolver
        content = to_container(value, resolve=False)
    return content if isinstance(content, (dict, list)) else None


def _fields(value: Any, names: Iterable[str]) -> dict[Any, Any]:
    """Return the fields of a dataclass, from its ``__dict__`` or its slots."""
    own = getattr(value, "__dict__", {})
    return {name: own[name] if name in own else getattr(value, name) for name in names if hasattr(value, name)}


def _entries(entries: dict[Any, Any], kind: type, walk: _Walk) -> dict[str, Any] | str:
    described: dict[str, Any] = {}
    for key, value in entries.items():
        key_description = _describe(key, walk)
        name = unique = key_description if isinstance(key_description, str) else str(key_description)
        number = 1
        while unique in described:  # 1 and "1", or two time stamps
            number += 1
            unique = f"{name} ({number})"
        described[unique] = _describe(value, walk)
    if len(described) > _MAX_ENTRIES:
        return f"{kind.__name__} of {len(described)}, {_json_digest(described)}"
    return described


def _elements(elements: list[Any], kind: type, walk: _Walk) -> list[Any] | str:
    size, unordered = len(elements), issubclass(kind, (set, frozenset))
    if size > _MAX_DESCRIBED_ELEMENTS:
        if unordered:  # a sample would differ between processes
            return f"{kind.__name__} of {size}"
        elements = elements[:: math.ceil(size / _MAX_DESCRIBED_ELEMENTS)]
    described = [_describe(element, walk) for element in elements]
    if unordered:
        described.sort(key=lambda one: json.dumps(one, sort_keys=True))
    return f"{kind.__name__} of {size}, {_json_digest(described)}" if size > _MAX_ELEMENTS else described


def _object(kind: type) -> str:
    return f"object {qualified_name(kind)}"


def qualified_name(named: Any) -> str:
    """Return module and qualified name of a class or function; a spawned process has another name for the script."""
    try:
        name = named.__qualname__ if isinstance(getattr(named, "__qualname__", None), str) else named.__name__
        module = getattr(named, "__module__", None)
        if not isinstance(module, str):
            return str(name)
        return f"{'__main__' if module == '__mp_main__' else module}.{name}"
    except Exception:  # noqa: BLE001 - a metaclass may compute these attributes
        return "unknown"


def _function(value: Any) -> str:
    name = qualified_name(value)
    return "lambda" if name.endswith("<lambda>") else f"function {name}"


def _integer(value: Any) -> int | str:
    number = int.__index__(value)
    if number.bit_length() > 256:  # Python limits the conversion of integers to strings
        size = number.bit_length()
        return f"int of {size} bits, {_digest(number.to_bytes(size // 8 + 1, 'little', signed=True))}"
    return TIME if is_recent(number) else number


def _real(value: Any) -> float | str:
    number = float.__float__(value)
    if not math.isfinite(number):
        return str(number)
    return TIME if is_recent(number) or is_recent_on_timer(number) else number


def _text(value: Any) -> str:
    """Return a string without time stamps, random identifiers, temporary paths and addresses, cut if it is long."""
    text: str = str.__str__(value)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")  # no lone surrogates in a file
    if len(text) <= _MAX_VALUES:
        text = stable_text(text)
    if len(text) > _MAX_CHARACTERS:
        return f"{text[:60]}... ({len(text)} characters, {_digest(text.encode())})"
    return text


def _bytes(value: Any) -> str:
    content = bytes(value)
    return f"bytes of {len(content)}, {_digest(content)}"


def _numpy_scalar(value: Any) -> Any:
    if value.dtype.kind == "M":
        return _text(str(value))
    number = value.item()
    return describe(float(number) if isinstance(number, np.generic) else number)  # long double


def _array(value: Any) -> str:
    name, shape = value.dtype.name, tuple(value.shape)
    array = np.asarray(value).reshape(-1)
    if array.dtype.hasobject:  # the bytes are addresses
        return f"tensor {name} {shape} {_json_digest(describe(array.tolist()))}"
    if array.size > _MAX_HASHED_ELEMENTS:
        array = array[:: array.size // _SAMPLE]
    return f"tensor {name} {shape} {_digest(array.tobytes())}"


def _tensor(value: Any) -> str:
    if is_lazy(value):
        return "uninitialized"
    name = f"tensor {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, DTensor) or value.is_meta:  # its content depends on the rank, or there is none
        return name
    try:
        flat = value.detach().resolve_conj().resolve_neg()
        flat = flat.to_dense() if flat.layout != torch.strided else flat
        flat = flat.reshape(-1)
        if flat.numel() > _MAX_HASHED_ELEMENTS:
            flat = flat[:: flat.numel() // _SAMPLE]
        return f"{name} {_digest(flat.cpu().contiguous().view(torch.uint8).numpy().tobytes())}"
    except Exception:  # noqa: BLE001 - tensor subclasses need not support this
        return name


def _module(value: Any) -> str:
    parameters = dict(torch.nn.Module.named_parameters(value))
    name = f"module {qualified_name(type(value))}"
    if not parameters:
        return name
    shapes = {name: "uninitialized" if is_lazy(one) else list(one.shape) for name, one in parameters.items()}
    count = sum(0 if is_lazy(one) else one.numel() for one in parameters.values())
    return f"{name} with {count} parameters, {_json_digest(shapes)}"


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=4).hexdigest()


def _json_digest(description: Any) -> str:
    return _digest(json.dumps(description, sort_keys=True).encode())


def _enum(value: Any) -> str:
    name = getattr(value, "_name_", None)
    return f"{type(value).__name__}.{name if name is not None else value._value_}"


_SIMPLE: tuple[tuple[Any, Callable[[Any], Any]], ...] = (  # the first one that fits
    ((type(None), bool), lambda value: value),
    (enum.Enum, _enum),
    (np.generic, _numpy_scalar),
    (int, _integer),
    (float, _real),
    (str, _text),
    (complex, lambda value: str(complex(value))),
    ((bytes, bytearray, memoryview), _bytes),
    ((datetime.date, datetime.time), lambda value: _text(str(value))),
    (time.struct_time, lambda value: _text(time.strftime("%Y-%m-%d %H:%M:%S", value))),
    (uuid.UUID, lambda value: IDENTIFIER),
    ((datetime.timedelta, decimal.Decimal, fractions.Fraction, range, slice), lambda value: _text(str(value))),
    (PurePath, lambda value: _text(str(value))),
    (re.Pattern, lambda value: f"regex {describe(value.pattern)}"),
    ((torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format), str),
    (torch.Tensor, _tensor),
    (np.ndarray, _array),
    (torch.nn.Module, _module),
    (_FUNCTION_TYPES, _function),
    (type, lambda value: f"class {qualified_name(value)}"),
)
