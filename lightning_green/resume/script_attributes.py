"""Attributes that a script changes during a fit: no checkpoint of Lightning contains them.

For example a loss weight that ``on_train_epoch_start`` sets, a list that grows, or a layer that is unfrozen. Lightning
does not call the hooks of the start of an epoch again when it continues in the middle of the epoch.
"""

from __future__ import annotations

import collections
import enum
import io
import types
from collections.abc import Iterator, MutableMapping
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset, Sampler
from torchmetrics import Metric

from lightning_green._lightning.module_attributes import attributes_of
from lightning_green._lightning.namespaces import both
from lightning_green.resume.attribute_values import (
    SCALARS,
    Identity,
    as_text,
    assign_same,
    fingerprint,
    from_portable,
    identity,
    same_elements,
    tensors_in,
    to_portable,
)
from lightning_green.resume.object_walk import is_library, is_script_class
from lightning_green.resume.plain_data import NotPlainError
from lightning_green.resume.plain_forms import form_of

_OF_TRAINER = (
    *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "should_stop"),
    *("check_val_every_n_epoch", "log_every_n_steps"),
)
# Their attributes are those of loaders, which read ahead and have positions of their own, or of Lightning.
_NOT_ENTERED = (
    *(torch.nn.Module, Dataset, Sampler, DataLoader, pl.Trainer, pl.Callback, pl.LightningDataModule),
    *(torch.optim.Optimizer, torch.Tensor, enum.Enum, type, types.ModuleType, types.FunctionType),
)

_CONTAINERS = (list, tuple, dict, set, collections.deque)
_MAX_DEPTH = 8
_ABSENT = ""


class _Scope(enum.Enum):
    """Which attributes of an object count."""

    ALL = "all"
    CONTAINERS = "no numbers and strings: those of a logger describe its files and connections in this process"
    PUBLIC_SCALARS = "public numbers and strings, of objects of libraries"


class _Namespace(NamedTuple):
    """The attributes of one object by name."""

    path: str
    values: MutableMapping[str, Any]
    scope: _Scope = _Scope.ALL
    ignored: frozenset[str] = frozenset()


class ScriptAttributes:
    """Saves the attributes that differ from those at the start of the fit, and sets them again.

    Covers the module with its submodules and ``hparams``, the DataModule, the callbacks, objects of the script's own
    classes in their attributes, ``requires_grad`` of the parameters, settings of the Trainer, and what loggers that are
    not Lightning's keep in memory. Attributes that refer to the module's weights are not covered. A number, a string or
    a container of them that the script creates with another value than before, such as a time or a changed argument,
    keeps its new value.

    Args:
        trainer: The trainer.

    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self._trainer = trainer
        self._before: dict[tuple[str, str], int] | None = None
        self._created: dict[tuple[str, str], str] = {}
        self._identities: dict[tuple[str, str], Identity] = {}
        self._before_sanity_check: dict[tuple[str, str], tuple[int, str]] = {}
        self._after_sanity_check: dict[tuple[str, str], tuple[int, str]] = {}
        self._trained_before: dict[str, bool] = {}
        self._reported: set[str] = set()
        self._failed = False

    def before_sanity_check(self) -> None:
        """Remember the attributes before the sanity check, which a process that continues a fit skips."""
        self._before_sanity_check = self._values()

    def after_sanity_check(self) -> None:
        """Remember the attributes after the sanity check."""
        self._after_sanity_check = self._values()

    def begin(self) -> None:
        """Remember the attributes as they are; before the hooks of the first epoch of this process."""
        if self._before is not None:
            return
        self._before = {}
        self._trained_before = self._requires_grad()
        for key, value in self._values(self._identities).items():
            before = self._before_sanity_check.get(key, (0, _ABSENT))
            if before != value == self._after_sanity_check.get(key):  # only the sanity check has changed it
                self._created[key] = before[1]
            else:
                self._before[key], self._created[key] = value

    def _values(
        self, identities: dict[tuple[str, str], Identity] | None = None
    ) -> dict[tuple[str, str], tuple[int, str]]:
        """Return a fingerprint and a text of each attribute; add their identity to ``identities``."""
        if self._failed:
            return {}
        try:
            found = {(space.path, name): one for space in _namespaces(self._trainer) for name, one in _own(space)}
            if identities is not None:
                identities.update((key, identity(one)) for key, one in found.items())
            return {key: (fingerprint(one), as_text(one)) for key, one in found.items()}
        except Exception as error:  # noqa: BLE001 - an object of the script may raise anything
            self._fails(error)
            return {}

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
        iterators = list[str]()
        for space in _namespaces(self._trainer):
            for name, value in _own(space):
                if _has_unknown_position(value):
                    iterators.append(f"{space.path}.{name}")
                if fingerprint(value) == before.get((space.path, name)) or weights.are_in(value):
                    continue
                try:
                    key = (space.path, name)
                    item = {
                        **to_portable(value),
                        "created": self._created.get(key, _ABSENT),
                        "same": same_elements(value, self._identities.get(key)),
                    }
                    values.setdefault(space.path, {})[name] = item
                except NotPlainError:
                    if not _is_of_script(value):  # its attributes are saved
                        lost.append(f"{space.path}.{name}")
        self._report(lost, "have changed during the training and cannot be saved")
        self._report(iterators, "are iterators, whose position cannot be saved")
        return values

    def restore(self, saved: dict[str, Any]) -> None:
        """Set the result of ``capture``; objects that no longer exist are skipped."""
        self.begin()
        for space in _namespaces(self._trainer):
            for name, item in saved["values"].get(space.path, {}).items():
                if item["created"] != self._created.get((space.path, name), _ABSENT):
                    continue
                value = from_portable(item, self._trainer.lightning_module.device)
                created = self._identities.get((space.path, name))
                space.values[name] = assign_same(space.values.get(name), value, item["same"], created)
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

    def _report(self, lost: list[str], why: str) -> None:
        new = [path for path in lost if path not in self._reported]
        if new:
            self._reported.update(new)
            rank_zero_warn(
                f"These attributes {why}: {', '.join(new)}. After a pause they are as the script creates them."
            )


def _namespaces(trainer: pl.Trainer) -> Iterator[_Namespace]:
    seen: set[int] = set()
    yield _Namespace("trainer", {name: getattr(trainer, name) for name in _OF_TRAINER})
    module = trainer.lightning_module
    for name, child in module.named_modules():
        if not isinstance(child, Metric):  # saved with the logged metrics
            yield from _enter(f"module.{name}".rstrip("."), child, seen)
    if isinstance(module.hparams, dict):
        yield _Namespace("hparams", module.hparams)
    datamodule: pl.LightningDataModule | None = trainer.datamodule  # type: ignore[attr-defined]
    if datamodule is not None:
        yield from _enter("datamodule", datamodule, seen)
    for index, callback in enumerate(trainer.callbacks):  # type: ignore[attr-defined]
        if all(base in both(pl.Callback) or not is_library(base) for base in type(callback).__mro__):
            yield from _enter(f"callbacks[{index}]", callback, seen)
    for index, logger in enumerate(trainer.loggers):
        if not is_library(type(logger)):
            yield from _enter_logger(f"loggers[{index}]", logger, seen)


def _enter(path: str, owner: Any, seen: set[int], depth: int = 0) -> Iterator[_Namespace]:
    """Yield the attributes of an object, and those of objects of the script in its attributes."""
    if id(owner) in seen or depth > _MAX_DEPTH:
        return
    seen.add(id(owner))
    of_library = isinstance(owner, torch.nn.Module) and not _is_own_module(owner)
    scope = _Scope.PUBLIC_SCALARS if of_library else _Scope.ALL
    space = _Namespace(path, vars(owner), scope, _ignored(owner))
    yield space
    if not of_library:
        for name, value in list(_own(space)):
            if _is_of_script(value):
                yield from _enter(f"{path}.{name}", value, seen, depth + 1)


def _is_own_module(module: torch.nn.Module) -> bool:
    """Return whether all attributes of a module count: of the script, or the LightningModule of an installed package.

    A forecasting package, for example, keeps its list of losses in its LightningModule.
    """
    is_lightning_module = isinstance(module, both(pl.LightningModule))
    return is_script_class(type(module)) or (is_lightning_module and not is_library(type(module)))


def _enter_logger(path: str, owner: Any, seen: set[int], depth: int = 0) -> Iterator[_Namespace]:
    """Yield the containers of a logger, and those of objects of its package, such as its experiment."""
    if id(owner) in seen or depth > _MAX_DEPTH:
        return
    seen.add(id(owner))
    yield _Namespace(path, vars(owner), _Scope.CONTAINERS)
    package = type(owner).__module__.partition(".")[0]
    for name, value in list(vars(owner).items()):
        if not hasattr(value, "__dict__") or isinstance(value, both(*_NOT_ENTERED)) or form_of(value) is not None:
            continue
        if is_script_class(type(value)) or type(value).__module__.partition(".")[0] == package:
            yield from _enter_logger(f"{path}.{name}", value, seen, depth + 1)


def _own(space: _Namespace) -> Iterator[tuple[str, Any]]:
    for name, value in list(space.values.items()):
        if name in space.ignored or (space.scope is _Scope.PUBLIC_SCALARS and name.startswith("_")):
            continue
        if space.scope is _Scope.CONTAINERS:
            if isinstance(value, _CONTAINERS) or form_of(value) is not None:
                yield name, value
        elif space.scope is _Scope.ALL or isinstance(value, SCALARS):
            yield name, value


def _ignored(owner: Any) -> frozenset[str]:
    """Return the names of the attributes that belong to Lightning and PyTorch."""
    kinds = (pl.LightningModule, torch.nn.Module, pl.LightningDataModule)
    names = next((attributes_of(kind) - {"training"} for kind in kinds if isinstance(owner, both(kind))), frozenset())
    forward = vars(owner).get("forward")
    own = isinstance(forward, types.MethodType) and forward.__self__ is owner
    own = own and forward.__func__ is getattr(type(owner), "forward", None)
    return names | {"forward"} if own else names  # DDP replaces it during a step and sets it again


def _is_of_script(value: Any) -> bool:
    return hasattr(value, "__dict__") and is_script_class(type(value)) and not isinstance(value, both(*_NOT_ENTERED))


def _has_unknown_position(value: Any) -> bool:
    """Return whether a value is an iterator, such as a generator, of which nobody knows how far it is."""
    known = isinstance(value, io.IOBase) or form_of(value) is not None
    return isinstance(value, Iterator) and not known and not _is_of_script(value)  # whose attributes are saved


class _Weights:
    """The parameters and buffers of a module, to find attributes that refer to them."""

    def __init__(self, pl_module: pl.LightningModule) -> None:
        tensors = [*pl_module.parameters(), *pl_module.buffers()]
        self._ids = {id(one) for one in tensors}
        self._storages = {_storage(one) for one in tensors} - {0}

    def are_in(self, value: Any) -> bool:
        """Return whether a value is or contains one of them, or a view of one."""
        return any(id(one) in self._ids or _storage(one) in self._storages for one in tensors_in(value))


def _storage(tensor: torch.Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # sparse, meta and uninitialized tensors
        return 0
