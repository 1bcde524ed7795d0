"""Ordinary Python objects as plain data, which ``torch.load(weights_only=True)`` reads, and back.

A checkpoint is untrusted input, so plain data names no function to call and no module to import. The class of an enum,
a dataclass or a named tuple is looked up among the modules that the script has imported, and its fields are set without
calling its constructor.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch

from lightning_green.resume.plain_forms import FORMS_BY_NAME, form_of

TAG = "lightning_green/type"
"""Key that marks a dict as the representation of another object."""

_MAX_DEPTH = 100

_PLAIN = (type(None), bool, int, float, str, torch.Size, torch.dtype, torch.device)
_KEYS = (type(None), bool, int, float, str)
_FACTORIES = {"None": None} | {kind.__name__: kind for kind in (list, dict, set, int, float, str, bool, tuple)}


class NotPlainError(TypeError):
    """A part of a state cannot be saved.

    Args:
        path: Path to the part, for example ``callbacks['MyCallback']['vocabulary']``.
        problem: The problem, as a predicate.

    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path or 'the state'} {problem}")
        self.path, self.problem = path, problem

    def __reduce__(self) -> tuple[Any, ...]:
        return NotPlainError, (self.path, self.problem)  # it is sent to rank 0


def to_plain(value: Any, path: str = "") -> Any:
    """Return ``value`` as plain data; tensors and parts that are plain data are returned unchanged.

    Paths, enums, dataclasses, named tuples, dates and times, deques, namespaces, NumPy arrays and scalars, and random
    generators are converted. A subclass of ``torch.Tensor`` becomes a plain tensor.

    Args:
        value: A state: nested dicts, lists and other containers.
        path: Name of the state in error messages.

    Raises:
        NotPlainError: If a part cannot be saved, such as a function.

    Examples:
        >>> import pathlib
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
            return value  # unchanged: `load_state_dict` reads an attribute of the one of a module
        form = form_of(value)
        if form is not None:
            return {TAG: form.name, "value": self.encode(form.encode(value), path)}
        if isinstance(value, collections.defaultdict) and kind is collections.defaultdict:
            factory = getattr(value.default_factory, "__name__", "None")
            if _FACTORIES.get(factory, self) is value.default_factory:
                return {TAG: "defaultdict", "factory": factory, "value": self._dict(dict(value), path)}
        return self._by_class(value, kind, path)

    def _by_class(self, value: Any, kind: type, path: str) -> Any:
        content: Any = None
        if isinstance(value, enum.Enum):
            is_member = value.name in type(value).__members__
            name, content = "enum", value.name if is_member else [value.value]
        elif dataclasses.is_dataclass(value) and not isinstance(value, (dict, tuple)):
            names = [field.name for field in dataclasses.fields(value)]
            name, content = "dataclass", {n: getattr(value, n) for n in names if hasattr(value, n)}
            content |= getattr(value, "__dict__", {})
        elif isinstance(value, tuple) and hasattr(kind, "_fields"):
            name, content = "namedtuple", list(value)
        elif isinstance(value, dict) and not isinstance(value, collections.defaultdict):
            name, content = "mapping", [dict(value), dict(getattr(value, "__dict__", {}))]
        else:
            raise NotPlainError(path, f"is a `{kind.__module__}.{kind.__qualname__}`, which cannot be saved")
        if name != "enum" and _new(name, kind) is None:
            raise NotPlainError(path, f"is a `{kind.__module__}.{kind.__qualname__}`, which cannot be saved")
        if _find(kind.__module__, kind.__qualname__) is not kind:
            raise NotPlainError(path, f"is a `{kind.__qualname__}`, a local class, which cannot be saved")
        return {
            TAG: name,
            "class": [kind.__module__, kind.__qualname__],
            "value": self.encode(content, path),
        }

    def _dict(self, value: dict[Any, Any], path: str) -> Any:
        if TAG in value or any(type(key) not in _KEYS for key in value):
            pairs = [[self.encode(k, f"a key of {path}"), self.encode(v, f"{path}[{k!r}]")] for k, v in value.items()]
            return {TAG: "dict", "value": pairs}
        items = {key: self.encode(item, f"{path}[{key!r}]" if path else str(key)) for key, item in value.items()}
        changed = any(items[key] is not item for key, item in value.items())
        return items if changed else value

    @staticmethod
    def _tensor(value: torch.Tensor) -> torch.Tensor:
        if type(value) in (torch.Tensor, torch.nn.Parameter) or hasattr(value, "device_mesh"):
            return value
        return value.as_subclass(torch.Tensor)


def from_plain(value: Any) -> Any:
    """Return the value that was passed to ``to_plain``.

    Raises:
        RuntimeError: If a class does not exist in this process, or ``to_plain`` does not write such data.

    """
    kind = type(value)
    if kind is list or kind is tuple:
        return kind([from_plain(item) for item in value])
    if kind is not dict:
        return value
    if TAG not in value:
        return {key: from_plain(item) for key, item in value.items()}
    try:
        return _decode(value[TAG], value)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, ImportError) as error:
        raise RuntimeError(f"a `{value[TAG]}` in the state cannot be restored: {error!r}") from error


def _decode(name: str, saved: Mapping[str, Any]) -> Any:
    content = from_plain(saved["value"])
    if name == "dict":
        return {key: item for key, item in content}  # noqa: C416 - pairs are lists
    if name == "defaultdict":
        return collections.defaultdict(_FACTORIES[saved["factory"]], content)
    if name in FORMS_BY_NAME:
        return FORMS_BY_NAME[name].decode(content)
    kind = _find(*saved["class"])
    if name == "enum" and isinstance(kind, enum.EnumMeta):
        return kind[content] if isinstance(content, str) else kind(content[0])
    new = _new(name, kind) if isinstance(kind, type) else None
    if name == "dataclass" and new is not None and dataclasses.is_dataclass(kind):
        return _with_fields(new, content)
    if name == "namedtuple" and isinstance(new, tuple):
        return tuple.__new__(kind, content)
    if name == "mapping" and isinstance(new, dict):
        set_item = collections.OrderedDict.__setitem__ if isinstance(new, collections.OrderedDict) else dict.__setitem__
        for key, item in content[0].items():
            set_item(new, key, item)
        return _with_fields(new, content[1])
    module, qualname = saved["class"]
    raise RuntimeError(f"`{module}.{qualname}`, which the state contains, is no longer defined in this script")


def _new(name: str, kind: type) -> Any:
    """Return an object of a class without calling code of the class; None if that is not possible."""
    bases: dict[str, tuple[Any, ...]] = {"dataclass": (object,), "namedtuple": (tuple,)}
    for base in bases.get(name, (collections.OrderedDict, dict)):
        with suppress(TypeError):  # another base class of C has an own layout
            return base.__new__(kind)
    return None


def _with_fields(restored: Any, content: dict[str, Any]) -> Any:
    for field, item in content.items():
        object.__setattr__(restored, field, item)
    return restored


def _find(module: str, qualname: str) -> Any:
    """Return a class of an imported module by name; None if there is none."""
    module = _main(module)
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None) if found is not None and not part.startswith("__") else None
    return found if isinstance(found, type) and _main(found.__module__) == module else None


def _main(module: str) -> str:
    """Return the name of a module; the script has another name in a spawned process."""
    return "__main__" if module == "__mp_main__" else module
