"""The communication of the ranks under DDP: the buckets of the gradients, and what hooks and averagers keep.

For example PowerSGD keeps, on each rank, the part of the gradients that its compression has lost so far. An object with
``state_dict`` and ``load_state_dict`` is saved with them, and another one by its attributes.
"""

from __future__ import annotations

import copy
import dis
import functools
import types
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.algorithms.model_averaging.averagers import ModelAverager
from torch.distributed.checkpoint.stateful import Stateful

from lightning_green._lightning.ddp import bucket_layout, communication_hooks, model_averager, set_bucket_layout
from lightning_green._lightning.namespaces import both
from lightning_green.resume.attribute_values import SCALARS, assign, from_portable, to_portable
from lightning_green.resume.errors import InexactStateError
from lightning_green.resume.object_walk import GENERATORS, is_script_name, slot_names
from lightning_green.resume.plain_data import NotPlainError
from lightning_green.strategies import GreenDDPStrategy

_OF_PROCESS = (dist.ProcessGroup, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)
_SAVED_ELSEWHERE = (torch.nn.Module, pl.Trainer, pl.Callback, pl.LightningDataModule, torch.optim.Optimizer)
_IN_PLACE = (torch.Tensor, np.ndarray, list, dict, set, *GENERATORS)
_CONTENT, _STATE, _MISSING = "", "state_dict()", object()
_Key = tuple[str, str]
"""The path to an object, and the name of its attribute, ``_CONTENT`` for the object itself, or ``_STATE`` for what its
``state_dict`` returns."""


class _Variables:
    """The variables of a file as attributes."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.__dict__ = content


class _Owner(NamedTuple):
    """An object in which communication hooks keep state.

    Attributes:
        path: Path to it, to find it in another process.
        value: The object.
        names: Names of its attributes, ``_CONTENT`` for the object itself, or ``_STATE`` for its ``state_dict``.

    """

    path: str
    value: Any
    names: list[str]


class Communication:
    """Saves and restores the communication of this rank.

    A number or a string that no hook changes, and that the script creates with another value than before, keeps its new
    value.

    Args:
        trainer: The trainer.

    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self._trainer = trainer
        self._created: dict[_Key, str] | None = None

    def begin(self) -> None:
        """Remember numbers and strings as the script has created them; before the first batch of this process."""
        if self._created is None:
            self._created = _scalars(_owners(self._trainer))

    def capture(self) -> dict[str, Any]:
        """Return the state of this rank; all ranks call it together between two batches.

        Raises:
            NotPlainError: If the state of a hook cannot be saved.

        """
        owners, created = _owners(self._trainer), self._created or {}
        settings = {key for key, _ in _scalars(owners).items() & created.items()}
        return {
            "buckets": bucket_layout(self._trainer),
            "owners": _classes(owners),
            "hooks": [
                {"path": key[0], "name": key[1], "is_setting": key in settings, **_portable(owner, key[1])}
                for key, owner in _places(owners).items()
            ],
            "averagers": [averager.step for averager in _averagers(self._trainer)],
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Set the result of ``capture`` before the first batch; all ranks call it together.

        Raises:
            InexactStateError: If DDP forms other buckets, or the script has registered other hooks.

        """
        self.begin()
        owners, device = _owners(self._trainer), self._trainer.strategy.root_device
        undo = _Undo(owners, device)
        if not set_bucket_layout(self._trainer, saved["buckets"]):
            raise InexactStateError(
                "DDP forms other gradient buckets than in the process that saved the checkpoint. Start the run with "
                "the original arguments of the strategy, or start from scratch with `lightning-green run --fresh -- "
                "...`."
            )
        undo.run(_owners(self._trainer))
        if _classes(owners) != saved["owners"]:
            raise InexactStateError(
                "The checkpoint contains the states of other communication hooks than this training has registered. "
                "Register the original ones, at the latest in `on_train_start`, or start from scratch with "
                "`lightning-green run --fresh -- ...`."
            )
        values = {owner.path: owner.value for owner in owners}
        here = _places(owners)
        for item in saved["hooks"]:
            if not item["is_setting"] or (item["path"], item["name"]) not in here:
                _write(values[item["path"]], item["name"], from_portable(item, device))
        for averager, step in zip(_averagers(self._trainer), saved["averagers"], strict=False):
            averager.step = step


class _Undo:
    """Undoes what hooks do in the pass of zeros that sets the layout of the buckets.

    Args:
        owners: Where the hooks keep state, before that pass.
        device: Device of the state that is not on the CPU.

    """

    def __init__(self, owners: list[_Owner], device: torch.device) -> None:
        self._device, self._before, self._copies = device, _places(owners), dict[_Key, dict[str, Any]]()
        self._paths = {owner.path for owner in owners}
        for key, owner in self._before.items():
            with suppress(NotPlainError):  # a save would report it
                self._copies[key] = copy.deepcopy(_portable(owner, key[1]))

    def run(self, owners: list[_Owner]) -> None:
        """Delete the attributes that are new in ``owners``, and set the others."""
        for (path, name), owner in _places(owners).items():
            if (path, name) not in self._before and path in self._paths:
                delattr(owner, name)
        for key, saved in self._copies.items():
            _write(self._before[key], key[1], from_portable(saved, self._device))


def _averagers(trainer: pl.Trainer) -> list[ModelAverager]:
    """Return what averages the models of the ranks: of the strategy, and in attributes of the module and callbacks."""
    owners = (trainer.lightning_module, *trainer.callbacks)  # type: ignore[attr-defined]
    found = [model_averager(trainer), *(value for owner in owners for value in vars(owner).values())]
    return [one for one in found if isinstance(one, ModelAverager)]


def _owners(trainer: pl.Trainer) -> list[_Owner]:
    """Return where communication hooks keep state: in their states, and in what their functions refer to."""
    seen: set[int] = set()
    found = [(f"{number}.{name}", one) for number, hook in enumerate(communication_hooks(trainer))
             for name, one in (("state", hook[1]), ("hook", hook[0]))]  # fmt: skip
    if isinstance(trainer.strategy, GreenDDPStrategy):  # also without a hook
        found.insert(0, ("strategy", trainer.strategy.communication))
    return [owner for path, one in found for owner in _reached(path, one, seen)]


def _reached(path: str, value: Any, seen: set[int]) -> Iterator[_Owner]:
    """Yield a value, the elements of a tuple, the object of a method, or what a function refers to; each of them once.

    The path of a value is the same in another process.
    """
    if isinstance(value, SCALARS) or id(value) in seen:
        return
    seen.add(id(value))
    parts: dict[str, Any] = {}
    if isinstance(value, functools.partial):
        parts = {"func": value.func, "args": value.args} | value.keywords
    elif isinstance(value, types.MethodType):
        parts = {"__self__": value.__self__, "__func__": value.__func__}
    elif isinstance(value, tuple):
        parts = {str(number): one for number, one in enumerate(value)}
    elif isinstance(value, types.FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            content = _contents(cell)
            if not content or isinstance(content[0], (*SCALARS, *_IN_PLACE)):
                yield _Owner(f"{path}.{name}", cell, ["cell_contents"] if content else [])
            else:
                parts[name] = content[0]
        if is_script_name(value.__module__):
            yield _Owner(f"{path}.__dict__", value, _attributes(value))
            yield _Owner(f"{path}.__globals__", _Variables(value.__globals__), _variables(value, seen))
    elif isinstance(value, _IN_PLACE):
        yield _Owner(path, value, [_CONTENT])
    elif not isinstance(value, (*_OF_PROCESS, *both(*_SAVED_ELSEWHERE))):
        yield _Owner(path, value, [_STATE] if isinstance(value, Stateful) else _attributes(value))
    for name, one in parts.items():
        yield from _reached(f"{path}.{name}", one, seen)


def _contents(cell: types.CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # not yet assigned
        return []


def _attributes(owner: Any) -> list[str]:
    slots = [name for kind in type(owner).__mro__ for name in slot_names(kind)]
    names = [name for name in (*slots, *getattr(owner, "__dict__", {})) if hasattr(owner, name)]
    return [name for name in names if not isinstance(getattr(owner, name), _OF_PROCESS)]


def _variables(function: types.FunctionType, seen: set[int]) -> list[str]:
    """Return the names of the variables of its file that a function assigns, and that it changes in place."""
    names, content = dict[str, None](), function.__globals__
    for code in _codes(function.__code__):
        assigned = {one.argval for one in dis.get_instructions(code) if one.opname in ("STORE_GLOBAL", "DELETE_GLOBAL")}
        names |= dict.fromkeys(
            name
            for name in code.co_names
            if name in content and (name in assigned or isinstance(content[name], _IN_PLACE))
        )
    found = [name for name in names if isinstance(content[name], SCALARS) or id(content[name]) not in seen]
    seen.update(id(content[name]) for name in found if not isinstance(content[name], SCALARS))
    return found


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield the code of a function and of the functions in it."""
    yield code
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield from _codes(one)


def _places(owners: list[_Owner]) -> dict[_Key, Any]:
    return {(owner.path, name): owner.value for owner in owners for name in owner.names}


def _scalars(owners: list[_Owner]) -> dict[_Key, str]:
    """Return the numbers and strings as text."""
    values = {key: _read(owner, key[1]) for key, owner in _places(owners).items()}
    return {key: repr(value) for key, value in values.items() if isinstance(value, SCALARS)}


def _classes(owners: list[_Owner]) -> dict[str, str]:
    return {owner.path: type(owner.value).__qualname__ for owner in owners}


def _read(owner: Any, name: str) -> Any:
    if name == _STATE:
        return owner.state_dict()
    return owner if name == _CONTENT else getattr(owner, name)


def _write(owner: Any, name: str, value: Any) -> None:
    if name == _STATE:
        owner.load_state_dict(value)
        return
    current = owner if name == _CONTENT else getattr(owner, name, _MISSING)
    assigned = assign(current, value)
    if assigned is not current:
        setattr(owner, name, assigned)


def _portable(owner: Any, name: str) -> dict[str, Any]:
    value = _read(owner, name)
    try:
        return to_portable(value)
    except NotPlainError as error:
        path = f"the state of a communication hook, {type(owner).__name__}{name and '.'}{name},"
        raise NotPlainError(path, f"is a `{type(value).__qualname__}`, which cannot be saved") from error
