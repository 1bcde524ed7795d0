"""Ordinary Python objects as plain data, which ``torch.load(weights_only=True)`` reads, and back.

A checkpoint is untrusted input. So what is written names no function to call and no module to import: the class of an
enum, a dataclass or a named tuple is looked up among those that the script has imported, and its fields are set
without its constructor.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import io
import math
import pathlib
import random
import sys
import types
import uuid
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

_TAG = "lightning_green/type"
_MAX_DEPTH = 100
_MAX_PROVEN_ELEMENTS = 16

_PLAIN = (type(None), bool, int, float, str, torch.Size, torch.dtype, torch.device)
_KEYS = (type(None), bool, int, float, str)
_FACTORIES = {"None": None} | {kind.__name__: kind for kind in (list, dict, set, int, float, str, bool, tuple)}


class NotPlainError(TypeError):
    """Something in a state cannot be saved.

    Args:
        path: Where it is, for example ``callbacks['MyCallback']['vocabulary']``.
        problem: What is wrong with it.

    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path or 'the state'} {problem}")
        self.path = path


class _Form(NamedTuple):
    """How objects of one type are written and read; ``encode`` returns something simpler, which is encoded in turn."""

    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def _array(value: Any) -> list[Any]:
    array = np.asarray(value)
    content = torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy()) if array.size else torch.empty(0)
    return [np.lib.format.dtype_to_descr(array.dtype), list(array.shape), content]


def _from_array(saved: Any) -> Any:
    descr, shape, content = saved
    dtype = np.lib.format.descr_to_dtype(descr)
    if dtype.hasobject:
        raise TypeError("an array of objects")
    data = content.to(torch.uint8).numpy().tobytes()
    return np.frombuffer(data, dtype).reshape(shape).copy() if data else np.empty(shape, dtype)


def _generator(saved: Any) -> np.random.Generator:
    name, state = saved
    kinds = {"PCG64": np.random.PCG64, "PCG64DXSM": np.random.PCG64DXSM, "MT19937": np.random.MT19937}
    kinds |= {"Philox": np.random.Philox, "SFC64": np.random.SFC64}
    generator = np.random.Generator(kinds[name]())
    generator.bit_generator.state = state
    return generator


def _legacy_generator(state: Any) -> np.random.RandomState:
    generator = np.random.RandomState()
    generator.set_state(state)
    return generator


def _python_generator(saved: Any) -> random.Random:
    version, numbers, gauss = saved
    generator = random.Random()  # noqa: S311 - restored, not drawn from
    generator.setstate((version, tuple(numbers.tolist()), gauss))
    return generator


def _torch_generator(saved: Any) -> torch.Generator:
    generator = torch.Generator(saved[0])
    generator.set_state(saved[1])
    return generator


def _python_state(value: random.Random) -> list[Any]:
    version, numbers, gauss = value.getstate()
    return [version, torch.tensor(numbers, dtype=torch.int64), gauss]


def _datetime(saved: Any) -> datetime.datetime:
    text, fold, zone = saved
    return datetime.datetime.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _time(saved: Any) -> datetime.time:
    text, fold, zone = saved
    return datetime.time.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _clock(value: Any) -> list[Any]:
    return [value.replace(tzinfo=None).isoformat(), value.fold, value.tzinfo]


_FORMS: dict[type, _Form] = {
    complex: _Form("complex", lambda v: [v.real, v.imag], lambda s: complex(*s)),
    bytes: _Form("bytes", bytes.hex, bytes.fromhex),
    bytearray: _Form("bytearray", bytearray.hex, bytearray.fromhex),
    set: _Form("set", list, set),
    frozenset: _Form("frozenset", list, frozenset),
    range: _Form("range", lambda v: [v.start, v.stop, v.step], lambda s: range(*s)),
    slice: _Form("slice", lambda v: [v.start, v.stop, v.step], lambda s: slice(*s)),
    collections.deque: _Form("deque", lambda v: [list(v), v.maxlen], lambda s: collections.deque(*s)),
    collections.OrderedDict: _Form("OrderedDict", lambda v: [list(v.items())], lambda s: collections.OrderedDict(*s)),
    collections.Counter: _Form("Counter", dict, collections.Counter),
    argparse.Namespace: _Form("Namespace", vars, lambda s: argparse.Namespace(**s)),
    types.SimpleNamespace: _Form("SimpleNamespace", vars, lambda s: types.SimpleNamespace(**s)),
    types.MappingProxyType: _Form("mappingproxy", dict, types.MappingProxyType),
    datetime.date: _Form("date", str, datetime.date.fromisoformat),
    datetime.datetime: _Form("datetime", _clock, _datetime),
    datetime.time: _Form("time", _clock, _time),
    datetime.timedelta: _Form(
        "timedelta", lambda v: [v.days, v.seconds, v.microseconds], lambda s: datetime.timedelta(*s)
    ),
    datetime.timezone: _Form(
        "timezone", lambda v: [v.utcoffset(None), v.tzname(None)], lambda s: datetime.timezone(*s)
    ),
    zoneinfo.ZoneInfo: _Form("ZoneInfo", lambda v: v.key, zoneinfo.ZoneInfo),
    decimal.Decimal: _Form("Decimal", str, decimal.Decimal),
    fractions.Fraction: _Form("Fraction", lambda v: [v.numerator, v.denominator], lambda s: fractions.Fraction(*s)),
    uuid.UUID: _Form("UUID", str, uuid.UUID),
    np.ndarray: _Form("ndarray", _array, _from_array),
    np.random.Generator: _Form(
        "numpy.Generator", lambda v: [type(v.bit_generator).__name__, v.bit_generator.state], _generator
    ),
    np.random.RandomState: _Form("numpy.RandomState", lambda v: v.get_state(legacy=False), _legacy_generator),
    random.Random: _Form("random.Random", _python_state, _python_generator),
    torch.Generator: _Form("torch.Generator", lambda v: [str(v.device), v.get_state()], _torch_generator),
    **{
        kind: _Form(kind.__name__, str, kind)
        for kind in (pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path()))
    },
}
_NUMPY_SCALAR = _Form("numpy scalar", _array, lambda s: _from_array(s)[()])
_NUMPY_DTYPE = _Form("numpy dtype", np.lib.format.dtype_to_descr, np.lib.format.descr_to_dtype)
_BY_NAME = {form.name: form for form in (*_FORMS.values(), _NUMPY_SCALAR, _NUMPY_DTYPE)}


def _form_of(value: Any) -> _Form | None:
    if isinstance(value, np.generic):
        return None if value.dtype.hasobject else _NUMPY_SCALAR
    if isinstance(value, np.dtype):
        return None if value.hasobject else _NUMPY_DTYPE
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return None
    return _FORMS.get(type(value))


# -- saving ----------------------------------------------------------------------------------------------------------


def to_plain(value: Any, path: str = "") -> Any:
    """Return ``value`` as plain data; tensors, and parts that are plain already, are returned as they are.

    Paths, enums, dataclasses, named tuples, dates and times, deques, namespaces, NumPy arrays and scalars, and random
    generators are converted. A subclass of ``torch.Tensor`` is saved as a plain tensor.

    Args:
        value: A state: nested dicts, lists and other containers.
        path: Name of the state in error messages.

    Raises:
        NotPlainError: If there is something in it that cannot be saved, such as a function.

    Example::

        >>> from_plain(to_plain({"folder": pathlib.PurePosixPath("data")}))
        {'folder': PurePosixPath('data')}

    """
    return _Encoder().encode(value, path)


class _Encoder:
    def __init__(self) -> None:
        self._open: set[int] = set()

    def encode(self, value: Any, path: str) -> Any:
        kind = type(value)
        if kind in _PLAIN or isinstance(value, torch.Tensor):
            return self._tensor(value) if isinstance(value, torch.Tensor) else value
        if id(value) in self._open:
            raise NotPlainError(path, "contains itself, which cannot be saved")
        if len(self._open) > _MAX_DEPTH:
            raise NotPlainError(path, "is nested too deeply to be saved")
        self._open.add(id(value))
        try:
            return self._encode(value, kind, path)
        finally:
            self._open.discard(id(value))

    def _encode(self, value: Any, kind: type, path: str) -> Any:
        if kind is list or kind is tuple:
            items = [self.encode(item, f"{path}[{index}]") for index, item in enumerate(value)]
            changed = any(new is not old for new, old in zip(items, value, strict=True))
            return kind(items) if changed else value
        if kind is dict:
            return self._dict(value, path)
        if kind is collections.OrderedDict and self._dict(value, path) is value:
            return value  # as it is: the one of a module has an attribute that `load_state_dict` reads
        form = _form_of(value)
        if form is not None:
            return {_TAG: form.name, "value": self.encode(form.encode(value), path)}
        if isinstance(value, collections.defaultdict) and kind is collections.defaultdict:
            factory = getattr(value.default_factory, "__name__", "None")
            if _FACTORIES.get(factory, self) is value.default_factory:
                return {_TAG: "defaultdict", "factory": factory, "value": self._dict(dict(value), path)}
        return self._by_class(value, kind, path)

    def _by_class(self, value: Any, kind: type, path: str) -> Any:
        content: Any = None
        if isinstance(value, enum.Enum):
            is_member = value.name in type(value).__members__
            name, content = "enum", value.name if is_member else [value.value]
        elif dataclasses.is_dataclass(value):
            names = [field.name for field in dataclasses.fields(value)]
            name, content = "dataclass", {n: getattr(value, n) for n in names if hasattr(value, n)}
            content |= getattr(value, "__dict__", {})
        elif isinstance(value, tuple) and hasattr(kind, "_fields"):
            name, content = "namedtuple", list(value)
        elif isinstance(value, dict) and kind is not collections.defaultdict:
            name, content = "mapping", [dict(value), dict(getattr(value, "__dict__", {}))]
        else:
            raise NotPlainError(path, f"is a `{kind.__module__}.{kind.__qualname__}`, which cannot be saved")
        if _find(kind.__module__, kind.__qualname__) is not kind:
            raise NotPlainError(path, f"is a `{kind.__qualname__}`, a local class, which cannot be saved")
        return {
            _TAG: name,
            "class": [kind.__module__, kind.__qualname__],
            "value": self.encode(content, path),
        }

    def _dict(self, value: dict[Any, Any], path: str) -> Any:
        if _TAG in value or any(type(key) not in _KEYS for key in value):
            pairs = [[self.encode(k, f"a key of {path}"), self.encode(v, f"{path}[{k!r}]")] for k, v in value.items()]
            return {_TAG: "dict", "value": pairs}
        items = {key: self.encode(item, f"{path}[{key!r}]" if path else str(key)) for key, item in value.items()}
        changed = any(items[key] is not item for key, item in value.items())
        return items if changed else value

    @staticmethod
    def _tensor(value: torch.Tensor) -> torch.Tensor:
        if type(value) in (torch.Tensor, torch.nn.Parameter) or hasattr(value, "device_mesh"):
            return value
        return value.as_subclass(torch.Tensor)


# -- loading ---------------------------------------------------------------------------------------------------------


def from_plain(value: Any) -> Any:
    """Return what :func:`to_plain` was given.

    Raises:
        RuntimeError: If a class is missing in this process, or the data is not what :func:`to_plain` writes.

    """
    kind = type(value)
    if kind is list or kind is tuple:
        return kind([from_plain(item) for item in value])
    if kind is not dict:
        return value
    if _TAG not in value:
        return {key: from_plain(item) for key, item in value.items()}
    try:
        return _decode(value[_TAG], value)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise RuntimeError(f"a `{value[_TAG]}` in the state cannot be restored: {error!r}") from error


def _decode(name: str, saved: Mapping[str, Any]) -> Any:
    content = from_plain(saved["value"])
    if name == "dict":
        return {key: item for key, item in content}  # noqa: C416 - pairs are lists
    if name == "defaultdict":
        return collections.defaultdict(_FACTORIES[saved["factory"]], content)
    if name in _BY_NAME:
        return _BY_NAME[name].decode(content)
    kind = _find(*saved["class"])
    if name == "enum" and isinstance(kind, enum.EnumMeta):
        return kind[content] if isinstance(content, str) else kind(content[0])
    if name == "dataclass" and isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _with_fields(object.__new__(kind), content)
    if name == "namedtuple" and isinstance(kind, type) and issubclass(kind, tuple):
        return tuple.__new__(kind, content)
    if name == "mapping" and isinstance(kind, type) and issubclass(kind, dict):
        restored = dict.__new__(kind)
        dict.update(restored, content[0])
        return _with_fields(restored, content[1])
    module, qualname = saved["class"]
    raise RuntimeError(f"`{module}.{qualname}`, which is in the state, is not defined in this script any more")


def _with_fields(restored: Any, content: dict[str, Any]) -> Any:
    for field, item in content.items():
        object.__setattr__(restored, field, item)
    return restored


def _find(module: str, qualname: str) -> Any:
    """Return a class of a module that is imported already; None where there is none of that name."""
    module = _main(module)
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None) if found is not None and not part.startswith("__") else None
    return found if isinstance(found, type) and _main(found.__module__) == module else None


def _main(module: str) -> str:
    """Return the name of a module; a spawned process has another one for the script."""
    return "__main__" if module == "__mp_main__" else module


# -- proving ---------------------------------------------------------------------------------------------------------


def prove_loads(state: Any) -> None:
    """Prove that a state can be written and read back; only small tensors are written, so it takes milliseconds.

    Raises:
        NotPlainError: If something in the state cannot be saved, or is not equal once it is read back.

    """
    small = _without_content(to_plain(state))
    file = io.BytesIO()
    try:
        torch.save(small, file)
        file.seek(0)
        restored = torch.load(file, weights_only=True)
        from_plain(restored)
    except Exception as error:  # what torch's pickler and unpickler raise is no closed list
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotPlainError("", f"cannot be written and read back: {line}") from error
    _compare(restored, small, "")


def _without_content(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        is_plain = value.layout == torch.strided and value.device.type != "meta" and not hasattr(value, "device_mesh")
        return value if is_plain and value.numel() <= _MAX_PROVEN_ELEMENTS else torch.zeros(1, dtype=value.dtype)
    if type(value) in (dict, collections.OrderedDict) and not _is_form_of_tensor(value):
        return {key: _without_content(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)([_without_content(item) for item in value])
    return value


def _is_form_of_tensor(value: dict[Any, Any]) -> bool:
    """Return whether a dict is a form whose tensor belongs to its other fields, and so stays whole."""
    return value.get(_TAG) in (_FORMS[np.ndarray].name, _NUMPY_SCALAR.name, "random.Random", "torch.Generator")


def _compare(found: Any, expected: Any, path: str) -> None:
    if type(found) is not type(expected):
        raise NotPlainError(path, f"is a `{type(expected).__name__}` and is read back as `{type(found).__name__}`")
    if isinstance(expected, dict):
        for key in expected:
            _compare(found.get(key), expected[key], f"{path}[{key!r}]" if path else str(key))
    elif isinstance(expected, (list, tuple)):
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            _compare(one, other, f"{path}[{index}]")
    elif isinstance(expected, torch.Tensor):
        if (found.dtype, found.shape) != (expected.dtype, expected.shape):
            raise NotPlainError(path, "is another tensor when it is read back")
    elif isinstance(expected, float) and math.isnan(expected):
        return
    elif found != expected:
        raise NotPlainError(path, "is not equal when it is read back")
