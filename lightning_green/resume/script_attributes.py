"""Attributes that a script changes during a fit: no checkpoint of Lightning contains them.

For example a loss weight that ``on_train_epoch_start`` sets, a list that grows, or a layer that is unfrozen. Lightning
does not call the hooks of the start of an epoch again when it continues in the middle of the epoch.
"""

from __future__ import annotations

import collections
import enum
import random
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler
from torchmetrics import Metric

from lightning_green._lightning.loaders import prefetched_batches, train_loaders
from lightning_green._lightning.module_attributes import attributes_of
from lightning_green.resume.plain_data import NotPlainError, to_plain
from lightning_green.resume.plain_forms import form_of

_OF_TRAINER = (
    *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "should_stop"),
    *("check_val_every_n_epoch", "log_every_n_steps"),
)
_LIBRARIES = {"torch", "lightning", "pytorch_lightning", "lightning_fabric", "lightning_green", "torchmetrics"}
_LIBRARY_PATHS = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
# Their attributes are those of loaders, which read ahead and have positions of their own, or of Lightning.
_NOT_ENTERED = (
    *(torch.nn.Module, Dataset, Sampler, DataLoader, pl.Trainer, pl.Callback, pl.LightningDataModule),
    *(torch.optim.Optimizer, torch.Tensor, enum.Enum, type, types.ModuleType, types.FunctionType),
)

_SAMPLES = 1000
"""Number of elements of a longer container that are compared."""
_MAX_DEPTH = 8
_ABSENT = ""


class _Namespace(NamedTuple):
    """The attributes of one object by name.

    Of libraries, only public numbers and strings count; of datasets only numbers and strings, because their containers
    may be as large as the data.
    """

    path: str
    values: MutableMapping[str, Any]
    ignored: frozenset[str]
    of_script: bool
    of_dataset: bool = False


class ScriptAttributes:
    """Saves the attributes that differ from those at the start of the fit, and sets them again.

    Covers the module with its submodules and ``hparams``, the DataModule, the callbacks, objects of the script's own
    classes in their attributes, ``requires_grad`` of the parameters, settings of the Trainer, and numbers and strings
    in map-style training datasets. Attributes that refer to the module's weights are not covered. A number, a string or
    a container of them that the script creates with another value than before, such as a time or a changed argument,
    keeps its new value.

    Args:
        trainer: The trainer.

    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self._trainer = trainer
        self._before: dict[tuple[str, str], int] | None = None
        self._created: dict[tuple[str, str], str] = {}
        self._trained_before: dict[str, bool] = {}
        self._reported: set[str] = set()
        self._failed = False

    def begin(self) -> None:
        """Remember the attributes as they are; before the hooks of the first epoch of this process."""
        if self._before is not None:
            return
        self._before = {}
        self._trained_before = self._requires_grad()
        try:
            for space in _namespaces(self._trainer):
                for name, value in _own(space):
                    self._before[space.path, name] = _fingerprint(value)
                    self._created[space.path, name] = _text(value)
        except Exception as error:  # noqa: BLE001 - an object of the script may raise anything
            self._fails(error)

    def capture(self) -> dict[str, Any]:
        """Return the attributes that have changed; a change that cannot be saved is reported once."""
        if self._before is None:
            return {"values": {}, "requires_grad": {}}
        now = self._requires_grad()
        trained = {name: value for name, value in now.items() if self._trained_before.get(name) != value}
        values: dict[str, dict[str, Any]] = {}
        if not self._failed:
            try:
                values = self._changed_values(self._before)
            except Exception as error:  # noqa: BLE001 - an object of the script may raise anything
                self._fails(error)
        return {"values": values, "requires_grad": trained}

    def _changed_values(self, before: dict[tuple[str, str], int]) -> dict[str, dict[str, Any]]:
        weights, values, lost = _Weights(self._trainer.lightning_module), dict[str, dict[str, Any]](), list[str]()
        for space in _namespaces(self._trainer):
            for name, value in _own(space):
                if _fingerprint(value) == before.get((space.path, name)) or weights.are_in(value):
                    continue
                try:
                    created = self._created.get((space.path, name), _ABSENT)
                    values.setdefault(space.path, {})[name] = {**_portable(value), "created": created}
                except NotPlainError:
                    if not _is_of_script(value):  # its attributes are saved
                        lost.append(f"{space.path}.{name}")
        self._report(lost)
        return values

    def restore(self, saved: dict[str, Any]) -> None:
        """Set the result of ``capture``; objects that no longer exist are skipped."""
        self.begin()
        for space in _namespaces(self._trainer):
            for name, item in saved["values"].get(space.path, {}).items():
                if item["created"] != self._created.get((space.path, name), _ABSENT):
                    continue
                value = _on_device(item, self._trainer.lightning_module.device)
                space.values[name] = _assign(space.values.get(name), value)
                if space.path == "trainer":
                    setattr(self._trainer, name, space.values[name])
        parameters = dict(self._trainer.lightning_module.named_parameters())
        for name, value in saved["requires_grad"].items():
            if name in parameters:
                parameters[name].requires_grad_(value)

    def _requires_grad(self) -> dict[str, bool]:
        return {name: one.requires_grad for name, one in self._trainer.lightning_module.named_parameters()}

    def _fails(self, error: Exception) -> None:
        """Stop to save attributes, because an object of the script cannot be read."""
        self._failed = True
        rank_zero_warn(
            f"Attributes that change during the training are not saved, because one of them cannot be read: {error!r}."
        )

    def _report(self, lost: list[str]) -> None:
        new = [path for path in lost if path not in self._reported]
        if new:
            self._reported.update(new)
            rank_zero_warn(
                f"These attributes have changed during the training and cannot be saved: {', '.join(new)}. After a "
                "pause they are as the script creates them."
            )


def _namespaces(trainer: pl.Trainer) -> Iterator[_Namespace]:
    seen: set[int] = set()
    yield _Namespace("trainer", {name: getattr(trainer, name) for name in _OF_TRAINER}, frozenset(), of_script=True)
    module = trainer.lightning_module
    for name, child in module.named_modules():
        if not isinstance(child, Metric):  # saved with the logged metrics
            yield from _enter(f"module.{name}".rstrip("."), child, seen)
    if isinstance(module.hparams, dict):
        yield _Namespace("hparams", module.hparams, frozenset(), of_script=True)
    datamodule: pl.LightningDataModule | None = trainer.datamodule  # type: ignore[attr-defined]
    if datamodule is not None:
        yield from _enter("datamodule", datamodule, seen)
    if not prefetched_batches(trainer):
        combined = train_loaders(trainer)
        for index, loader in enumerate(() if combined is None else combined.flattened):
            yield from _enter_dataset(f"datasets[{index}]", getattr(loader, "dataset", None), seen)
    for index, callback in enumerate(trainer.callbacks):  # type: ignore[attr-defined]
        if all(base is pl.Callback or not _is_library(base) for base in type(callback).__mro__):
            yield from _enter(f"callbacks[{index}]", callback, seen)


def _enter(path: str, owner: Any, seen: set[int], depth: int = 0) -> Iterator[_Namespace]:
    """Yield the attributes of an object, and those of objects of the script in its attributes."""
    if id(owner) in seen or depth > _MAX_DEPTH:
        return
    seen.add(id(owner))
    of_script = not isinstance(owner, torch.nn.Module) or is_script_class(type(owner))
    space = _Namespace(path, vars(owner), _ignored(owner), of_script)
    yield space
    if of_script:
        for name, value in list(_own(space)):
            if _is_of_script(value):
                yield from _enter(f"{path}.{name}", value, seen, depth + 1)


def _enter_dataset(path: str, dataset: Any, seen: set[int], depth: int = 0) -> Iterator[_Namespace]:
    """Yield the attributes of a map-style dataset and of the datasets in it."""
    if id(dataset) in seen or depth > _MAX_DEPTH:
        return
    if isinstance(dataset, (list, tuple)) and len(dataset) <= _SAMPLES:  # of a ConcatDataset
        for index, item in enumerate(dataset):
            yield from _enter_dataset(f"{path}[{index}]", item, seen, depth + 1)
    elif isinstance(dataset, Dataset) and not isinstance(dataset, IterableDataset):
        seen.add(id(dataset))
        yield _Namespace(path, vars(dataset), frozenset(), is_script_class(type(dataset)), of_dataset=True)
        for name, value in list(vars(dataset).items()):
            yield from _enter_dataset(f"{path}.{name}", value, seen, depth + 1)


def _own(space: _Namespace) -> Iterator[tuple[str, Any]]:
    for name, value in list(space.values.items()):
        is_scalar = isinstance(value, (bool, int, float, str, type(None)))
        counts = is_scalar or not space.of_dataset if space.of_script else is_scalar and not name.startswith("_")
        if counts and name not in space.ignored:
            yield name, value


def _ignored(owner: Any) -> frozenset[str]:
    """Return the names of the attributes that belong to Lightning and PyTorch."""
    kinds = (pl.LightningModule, torch.nn.Module, pl.LightningDataModule)
    return next((attributes_of(kind) - {"training"} for kind in kinds if isinstance(owner, kind)), frozenset())


def _is_of_script(value: Any) -> bool:
    return hasattr(value, "__dict__") and not isinstance(value, _NOT_ENTERED) and is_script_class(type(value))


def is_script_class(kind: type) -> bool:
    """Return whether a class belongs to the script, rather than to an installed package."""
    if _is_library(kind):
        return False
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return kind.__module__ == "__main__" or (file is not None and not file.startswith(_LIBRARY_PATHS))


def _is_library(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in _LIBRARIES


class _Weights:
    """The parameters and buffers of a module, to find attributes that refer to them."""

    def __init__(self, pl_module: pl.LightningModule) -> None:
        tensors = [*pl_module.parameters(), *pl_module.buffers()]
        self._ids = {id(one) for one in tensors}
        self._storages = {_storage(one) for one in tensors} - {0}

    def are_in(self, value: Any) -> bool:
        """Return whether a value is or contains one of them, or a view of one."""
        return any(id(one) in self._ids or _storage(one) in self._storages for one in _tensors(value))


def _storage(tensor: torch.Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # sparse, meta and uninitialized tensors
        return 0


def _tensors(value: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple, set, frozenset, dict, collections.deque)) and depth < _MAX_DEPTH:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item, depth + 1)


def _map_tensors(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return function(value)
    if type(value) in (list, tuple):
        return type(value)(_map_tensors(item, function) for item in value)
    if type(value) is collections.deque:
        return collections.deque((_map_tensors(item, function) for item in value), value.maxlen)
    if type(value) in (dict, collections.OrderedDict):
        return type(value)((key, _map_tensors(item, function)) for key, item in value.items())
    return value


def _portable(value: Any) -> dict[str, Any]:
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
    if len(moved) < sum(1 for _ in _tensors(value)):
        raise NotPlainError("", "contains tensors in a container of another kind")
    return {"value": content, "moved": moved}


def _on_device(item: dict[str, Any], device: torch.device) -> Any:
    moved = iter(item["moved"])
    return _map_tensors(item["value"], lambda tensor: tensor.to(device) if next(moved) else tensor)


def _fingerprint(value: Any, depth: int = 0) -> int:
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
        return frozenset(_fingerprint(item, depth + 1) for item in value)
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
    return id(value) if form is None else _fingerprint(form.encode(value), depth + 1)


def _text(value: Any, depth: int = 0) -> str:
    """Return a number, a string or a small container of them as text; of other objects only the class."""
    kind = type(value)
    if kind in (bool, int, float, complex, str, type(None)):
        return repr(value)
    if kind in (list, tuple, dict) and len(value) <= _SAMPLES and depth < _MAX_DEPTH:
        items = [item for pair in value.items() for item in pair] if kind is dict else value
        return f"{kind.__name__}({', '.join(_text(item, depth + 1) for item in items)})"
    return kind.__qualname__


def _elements(values: Any, depth: int) -> tuple[int, ...]:
    if len(values) > _SAMPLES:
        last = len(values) - 1
        values = [values[round(index * last / (_SAMPLES - 1))] for index in range(_SAMPLES)]
    return len(values), *(_fingerprint(item, depth + 1) for item in values)


def _bytes(array: np.ndarray[Any, Any]) -> bytes:
    flat = array.reshape(-1)
    return flat[:: max(1, flat.size // (_SAMPLES * _SAMPLES))].tobytes()


def _assign(current: Any, saved: Any) -> Any:
    """Return ``current`` with the content of ``saved`` if it can be set in place, as others may refer to it.

    Otherwise return ``saved``.
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
    elif isinstance(current, torch.Generator):
        return current.set_state(saved.get_state())
    elif isinstance(current, np.random.Generator) and type(current.bit_generator) is type(saved.bit_generator):
        current.bit_generator.state = saved.bit_generator.state
        return current
    elif isinstance(current, np.random.RandomState):
        current.set_state(saved.get_state(legacy=False))
        return current
    elif type(current) is random.Random:
        current.setstate(saved.getstate())
        return current
    elif type(current) is list:
        same = len(current) == len(saved)
        current[:] = [_assign(old, new) for old, new in zip(current, saved, strict=True)] if same else saved
        return current
    elif type(current) in (dict, collections.OrderedDict):
        content = {key: _assign(current[key], item) if key in current else item for key, item in saved.items()}
        current.clear()
        current.update(content)
        return current
    elif type(current) in (set, collections.deque):
        current.clear()
        current.__class__.__dict__["update" if type(current) is set else "extend"](current, saved)
        return current
    return saved
