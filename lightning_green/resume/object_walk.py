"""The objects of a data pipeline: what is reachable from its datasets, transforms, samplers and functions."""

from __future__ import annotations

import collections
import functools
import os
import random
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import Dataset

from lightning_green._lightning.namespaces import both

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
CONTAINERS = (list, tuple, dict, collections.deque)
LIBRARIES = {"torch", "lightning", "pytorch_lightning", "lightning_fabric", "lightning_green", "torchmetrics"}
_LIBRARY_PATHS = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {folder for folder in sys.path if folder and any(Path(folder).glob("*.dist-info"))}  # of `pip install --target`
)
_NOT_ENTERED = (
    *(torch.Tensor, np.ndarray, str, bytes, int, float, complex, type, types.ModuleType, types.BuiltinFunctionType),
    *(pl.Trainer, pl.LightningModule, pl.LightningDataModule),
)
_OF_A_PROCESS = {"asyncio", "concurrent", "filelock", "logging", "multiprocessing", "socket", "subprocess", "threading"}
"""Modules of locks, threads and connections, whose attributes mean nothing in another process."""
_LEAVES = {str, bytes, int, float, complex, bool, type(None), torch.Tensor, np.ndarray}
_MAX_DEPTH, _MAX_LENGTH, _MAX_OBJECTS = 8, 1000, 20_000
_MISSING = object()


class Namespace(NamedTuple):
    """Values by name: the attributes of an object or of a class, the variables of a function or of a file.

    Attributes:
        path: Path to it, for people and to find it in another process.
        values: Its values; setting one sets the attribute.
        owner: What it belongs to.
        is_script: Whether it belongs to the script, rather than to an installed package.
        is_shared: Whether worker processes share the values with this process.

    """

    path: str
    values: MutableMapping[str, Any]
    owner: Any
    is_script: bool = True
    is_shared: bool = False


def walk(
    *owners: Any, with_datasets: bool = True, without: Sequence[Any] = ()
) -> Iterator[tuple[str, Any, list[Namespace]]]:
    """Yield the objects, and what they refer to, with the path and the namespaces of each; the nearest ones first.

    Numbers, strings, tensors and arrays are found in the namespaces only.

    Entered are attributes, containers of up to 1,000 elements, the classes and functions of the script with the
    variables of files that they use, closures, bound methods and partial functions.

    Args:
        owners: The objects.
        with_datasets: Whether to enter datasets, to which samplers refer.
        without: More objects that are not entered.

    """
    seen: set[Any] = {id(one) for one in without}
    not_entered = both(*_NOT_ENTERED)
    waiting = collections.deque((str(number), owner, 0) for number, owner in enumerate(owners))
    while waiting and len(seen) < _MAX_OBJECTS:
        path, value, depth = waiting.popleft()
        kind = type(value)
        if id(value) in seen or depth > _MAX_DEPTH or (issubclass(kind, Dataset) and not with_datasets):
            continue
        if not has_class(value):
            continue
        seen.add(id(value))
        found: list[Namespace] = []
        parts: list[tuple[str, Any]] = []
        with suppress(Exception):  # objects of the script may raise anything when they are read
            found = [] if value is None or issubclass(kind, not_entered) else list(_namespaces(path, value, seen))
            parts = _elements(path, value) if issubclass(kind, CONTAINERS) else []
            parts += [(_join(space.path, name), item) for space in found for name, item in list(space.values.items())]
        yield path, value, found
        waiting.extend((name, item, depth + 1) for name, item in parts if type(item) not in _LEAVES)


def wrapped_datasets(dataset: Any) -> list[Any]:
    """Return a dataset and those that it wraps, as ``Subset`` and ``ConcatDataset`` do; they may be of any class."""
    found, waiting = dict[int, Any](), [dataset]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in found:
            found[id(one)] = one
            attributes = getattr(one, "__dict__", {})
            waiting += [attributes.get("dataset"), *_sequence(attributes.get("datasets"))]
    return list(found.values())


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def has_class(value: Any) -> bool:
    """Return whether a value can be asked for its class; a proxy to an object that does not exist yet cannot."""
    try:
        return isinstance(value.__class__, type)
    except Exception:  # noqa: BLE001 - a proxy may raise anything
        return False


def _elements(path: str, value: Any) -> list[tuple[str, Any]]:
    """Return the elements of a container with their paths, which are the same in another process."""
    if len(value) > _MAX_LENGTH:
        return []
    if not isinstance(value, dict):
        return [(f"{path}[{number}]", item) for number, item in enumerate(value)]
    keys = [repr(key) if type(key) in _LEAVES else f"#{number}" for number, key in enumerate(value)]
    return [(f"{path}[{key}]", item) for key, item in zip(keys, value.values(), strict=True)]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if name.isidentifier() else f"{path}{name}"


def _namespaces(path: str, value: Any, seen: set[Any]) -> Iterator[Namespace]:
    """Yield the namespaces of one object; those of classes and files once."""
    if isinstance(value, types.MethodType):
        yield Namespace(path, {"__self__": value.__self__, "__func__": value.__func__}, value)
    elif isinstance(value, functools.partial):
        yield Namespace(path, _Partial(value), value)
    elif isinstance(value, types.FunctionType):
        if is_script_name(value.__module__):
            yield from _of_function(path, value, seen)
    elif type(value).__module__ == "multiprocessing.sharedctypes":
        if hasattr(type(value), "value") or hasattr(value, "get_obj"):
            yield Namespace(path, _Shared(value), value, is_shared=True)
    elif type(value).__module__.partition(".")[0] not in _OF_A_PROCESS:
        attributes = getattr(value, "__dict__", None)
        is_script = is_script_class(type(value))
        if isinstance(value, torch.nn.Module) and isinstance(attributes, dict):
            names = attributes.keys() - ({"_parameters"} if _is_transform(value) else {"_parameters", "_buffers"})
            yield Namespace(path, _Some(attributes, names), value, is_script)
        elif isinstance(attributes, dict):
            yield Namespace(path, attributes, value, is_script)
        if _is_mosaicml_stream(value):
            yield Namespace(f"{path}.shared", _Slots(value, ["next_epoch"]), value, is_script=False, is_shared=True)
        if slots := _slots(type(value)):
            yield Namespace(path if attributes is None else f"{path}.__slots__", _Slots(value, slots), value)
        for kind in type(value).__mro__:
            if kind not in seen and kind is not object:
                seen.add(kind)
                yield from _of_class(kind, seen) if is_script_class(kind) else _of_library_class(kind)


def _is_mosaicml_stream(value: Any) -> bool:
    """Return whether a value is a ``StreamingDataset`` of MosaicML, whose epoch is in shared memory."""
    kinds = [kind for kind in type(value).__mro__ if kind.__module__.startswith("streaming.")]
    return any(isinstance(vars(kind).get("next_epoch"), property) for kind in kinds)


def _is_transform(module: torch.nn.Module) -> bool:
    """Return whether a module is no part of a model, whose buffers are saved with it."""
    on_cpu = all(buffer is None or buffer.device.type == "cpu" for buffer in module._buffers.values())
    return on_cpu and not any(True for _ in module.parameters())


def _slots(kind: type) -> list[str]:
    """Return the names of the slots that classes of the script define."""
    return [name for base in kind.__mro__ if is_script_class(base) for name in slot_names(base)]


def slot_names(kind: type) -> list[str]:
    """Return the names of the slots that one class defines, without those of its bases."""
    found, names = [], vars(kind).get("__slots__", ())
    for name in [names] if isinstance(names, str) else names:
        private = name.startswith("__") and not name.endswith("__")
        found.append(f"_{kind.__name__.lstrip('_')}{name}" if private else name)
    return [name for name in found if name not in ("__dict__", "__weakref__")]


def _of_function(path: str, function: types.FunctionType, seen: set[Any]) -> Iterator[Namespace]:
    if function.__closure__:
        names = function.__code__.co_freevars
        yield Namespace(path, _Cells(dict(zip(names, function.__closure__, strict=True))), function.__closure__)
    if function.__defaults__ or function.__kwdefaults__:
        defaults = {f"[{number}]": one for number, one in enumerate(function.__defaults__ or ())}
        yield Namespace(f"{path}.__defaults__", {**defaults, **(function.__kwdefaults__ or {})}, function)
    content = function.__globals__
    used = {name for name in _names(function.__code__) if (function.__module__, name) not in seen}
    seen.update((function.__module__, name) for name in used)
    used = {name for name in used if name in content and not _is_definition(content[name])}
    if used:
        yield Namespace(_file(function.__module__), _Some(content, used), content)


def _of_class(kind: type, seen: set[Any]) -> Iterator[Namespace]:
    code = (types.FunctionType, types.MemberDescriptorType, types.GetSetDescriptorType)
    names = {name for name, one in vars(kind).items() if not name.startswith("__") and not isinstance(one, code)}
    names = {name for name in names if not _is_definition(vars(kind)[name])}
    functions = [one for one in vars(kind).values() if isinstance(one, types.FunctionType)]
    properties = [one.fget for one in vars(kind).values() if isinstance(one, property) and one.fget is not None]
    yield Namespace(f"{_file(kind.__module__)}.{kind.__qualname__}", _ClassAttributes(kind, names), kind)
    for function in (*functions, *properties):
        if isinstance(function, types.FunctionType) and is_script_name(function.__module__):
            yield from _of_function(f"{_file(kind.__module__)}.{function.__qualname__}", function, seen)


def _of_library_class(kind: type) -> Iterator[Namespace]:
    """Yield the random generators of a class of a package, which all objects without one of their own share."""
    names = {name for name, value in vars(kind).items() if isinstance(value, GENERATORS)}
    if names:
        yield Namespace(f"{kind.__module__}.{kind.__qualname__}", _ClassAttributes(kind, names), kind, is_script=False)


def _is_definition(value: Any) -> bool:
    """Return whether a value of a class or a file is code, which only leads to state if the pipeline refers to it."""
    kinds = (type, types.ModuleType, property, staticmethod, classmethod, functools.cached_property)
    return isinstance(value, kinds) or hasattr(type(value), "__set_name__")


def _names(code: types.CodeType) -> set[str]:
    """Return the names of variables that a function and the functions in it use."""
    inner = [_names(one) for one in code.co_consts if isinstance(one, types.CodeType)]
    return set(code.co_names).union(*inner)


def _file(module: str) -> str:
    """Return the name of a file of the script, which has another module name in a spawned process."""
    return "__main__" if module == "__mp_main__" else module


class _View(MutableMapping[str, Any]):
    """Some values that are not in a dict of their own."""

    def __delitem__(self, name: str) -> None:
        raise TypeError("values are set only")

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Some(_View):
    """Some variables of a file."""

    def __init__(self, content: MutableMapping[str, Any], names: set[str]) -> None:
        self._content, self._names = content, sorted(names)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names if name in self._content)

    def __getitem__(self, name: str) -> Any:
        return self._content[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._content[name] = value


class _ClassAttributes(_View):
    """Attributes of a class."""

    def __init__(self, kind: type, names: set[str]) -> None:
        self._kind, self._names = kind, sorted(names)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names if name in vars(self._kind))

    def __getitem__(self, name: str) -> Any:
        return vars(self._kind)[name]

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self._kind, name, value)


class _Slots(_View):
    """Attributes in slots, and other attributes that are not in a ``__dict__``."""

    def __init__(self, owner: Any, names: list[str]) -> None:
        self._owner, self._names = owner, names

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names if hasattr(self._owner, name))

    def __getitem__(self, name: str) -> Any:
        return getattr(self._owner, name)

    def __setitem__(self, name: str, value: Any) -> None:
        object.__setattr__(self._owner, name, value)  # also in a frozen dataclass


class _Partial(_View):
    """The function and the arguments of a partial function."""

    def __init__(self, function: functools.partial[Any]) -> None:
        self._function = function

    def __iter__(self) -> Iterator[str]:
        return iter(("func", "args", "keywords"))

    def __getitem__(self, name: str) -> Any:
        return getattr(self._function, name)

    def __setitem__(self, name: str, value: Any) -> None:
        state = {"func": self._function.func, "args": self._function.args, "keywords": self._function.keywords}
        state[name] = value
        self._function.__setstate__((*state.values(), vars(self._function)))  # type: ignore[attr-defined]


class _Cells(_View):
    """The variables of a closure."""

    def __init__(self, cells: Mapping[str, types.CellType]) -> None:
        self._cells = cells

    def __iter__(self) -> Iterator[str]:
        return (name for name, cell in self._cells.items() if _content(cell) is not _MISSING)

    def __getitem__(self, name: str) -> Any:
        return self._cells[name].cell_contents

    def __setitem__(self, name: str, value: Any) -> None:
        self._cells[name].cell_contents = value


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet assigned
        return _MISSING


class _Shared(_View):
    """A number or an array of ``multiprocessing`` in shared memory."""

    def __init__(self, shared: Any) -> None:
        self._shared = shared

    def __iter__(self) -> Iterator[str]:
        return iter(["value" if hasattr(type(self._shared), "value") else "content"])

    def __getitem__(self, name: str) -> Any:
        return self._shared.value if name == "value" else list(self._shared.get_obj())

    def __setitem__(self, name: str, value: Any) -> None:
        if name == "value":
            self._shared.value = value
        else:
            self._shared.get_obj()[:] = value


def is_library(kind: type) -> bool:
    """Return whether a class belongs to PyTorch, Lightning or this package."""
    return kind.__module__.partition(".")[0] in LIBRARIES


def is_script_class(kind: type) -> bool:
    """Return whether a class belongs to the script, rather than to an installed package."""
    return not is_library(kind) and is_script_name(kind.__module__)


def is_script_name(module: str | None) -> bool:
    """Return whether a module of that name belongs to the script, rather than to an installed package."""
    if module is None or module.partition(".")[0] in LIBRARIES:
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return module == "__main__" or (file is not None and not file.startswith(_LIBRARY_PATHS))


def script_files() -> list[str]:
    """Return the files of the imported modules that belong to the script, rather than to an installed package."""
    modules = [(name, getattr(module, "__file__", None)) for name, module in list(sys.modules.items())]
    libraries = tuple(filter(None, _LIBRARY_PATHS))
    return sorted(
        {
            os.path.abspath(file)
            for name, file in modules
            if file is not None and name.partition(".")[0] not in LIBRARIES and not file.startswith(libraries)
        }
    )


def find(wanted: Callable[[Any], bool], *owners: Any, with_datasets: bool = True) -> dict[str, Any]:
    """Return the wanted objects among those of ``walk`` by their path."""
    return {path: value for path, value, _ in walk(*owners, with_datasets=with_datasets) if wanted(value)}
