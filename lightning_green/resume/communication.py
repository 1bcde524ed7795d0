"""The communication of the ranks under DDP: the buckets of the gradients, and what hooks and averagers keep.

For example PowerSGD keeps, on each rank, the part of the gradients that its compression has lost so far.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.algorithms.model_averaging.averagers import ModelAverager

from lightning_green._lightning.ddp import bucket_layout, communication_hooks, model_averager, set_bucket_layout
from lightning_green._lightning.namespaces import both
from lightning_green.resume.attribute_values import SCALARS, as_text, assign, from_portable, to_portable
from lightning_green.resume.errors import InexactStateError
from lightning_green.resume.object_walk import GENERATORS, is_script_class
from lightning_green.resume.plain_data import NotPlainError

_OF_PROCESS = (dist.ProcessGroup, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)
_SAVED_ELSEWHERE = (torch.nn.Module, pl.Trainer, pl.Callback, pl.LightningDataModule, torch.optim.Optimizer)
_IN_PLACE = (torch.Tensor, np.ndarray, list, dict, set, *GENERATORS)
_CONTENT = ""
_Place = tuple[Any, str]
"""An object and the name of its attribute, or ``_CONTENT`` for the object itself."""


class Communication:
    """Saves and restores the communication of this rank.

    A number or a string that the script creates with another value than before keeps its new value.

    Args:
        trainer: The trainer.

    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self._trainer = trainer
        self._created: list[str] | None = None

    def begin(self) -> None:
        """Remember the hooks as the script has created them; before the first batch of this process."""
        if self._created is None:
            self._created = [as_text(_read(place)) for place in _places(self._trainer)]

    def capture(self) -> dict[str, Any]:
        """Return the state of this rank; all ranks call it together between two batches.

        Raises:
            NotPlainError: If the state of a hook cannot be saved.

        """
        places, created = list(_places(self._trainer)), self._created or []
        texts = created if len(created) == len(places) else [""] * len(places)
        return {
            "buckets": bucket_layout(self._trainer),
            "hooks": [
                {"name": name, "created": text, **_portable(owner, name)}
                for (owner, name), text in zip(places, texts, strict=True)
            ],
            "averagers": [averager.step for averager in _averagers(self._trainer)],
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Set the result of ``capture`` before the first batch; all ranks call it together.

        Raises:
            InexactStateError: If DDP forms other buckets, or the script has registered other hooks.

        """
        self.begin()
        assert self._created is not None
        places = list(_places(self._trainer))
        if not set_bucket_layout(self._trainer, saved["buckets"]):
            raise InexactStateError(
                "DDP forms other gradient buckets than in the process that saved the checkpoint. Start the run with "
                "the original arguments of the strategy, or start from scratch with `lightning-green run --fresh -- "
                "...`."
            )
        if [name for _, name in places] != [item["name"] for item in saved["hooks"]]:
            raise InexactStateError(
                "The checkpoint contains the states of other communication hooks than this training has registered. "
                "Register the original ones, at the latest in `on_train_start`, or start from scratch with "
                "`lightning-green run --fresh -- ...`."
            )
        for place, item, created in zip(places, saved["hooks"], self._created, strict=True):
            if created == item["created"]:
                _write(place, from_portable(item, self._trainer.strategy.root_device))
        for averager, step in zip(_averagers(self._trainer), saved["averagers"], strict=False):
            averager.step = step


def _averagers(trainer: pl.Trainer) -> list[ModelAverager]:
    """Return what averages the models of the ranks: of the strategy, and in attributes of the module and callbacks."""
    owners = (trainer.lightning_module, *trainer.callbacks)  # type: ignore[attr-defined]
    found = [model_averager(trainer), *(value for owner in owners for value in vars(owner).values())]
    return [one for one in found if isinstance(one, ModelAverager)]


def _places(trainer: pl.Trainer) -> Iterator[_Place]:
    """Yield where communication hooks keep state: in their states, and in what their functions refer to."""
    seen: set[int] = set()
    for hook, state in communication_hooks(trainer):
        for one in (state, *_referred(hook)):
            if isinstance(one, (*SCALARS, *_OF_PROCESS, *both(*_SAVED_ELSEWHERE))) or id(one) in seen:
                continue
            seen.add(id(one))
            if isinstance(one, _IN_PLACE):
                yield one, _CONTENT
                continue
            for name in _attributes(one):
                if not isinstance(getattr(one, name), _OF_PROCESS):
                    yield one, name


def _referred(hook: Any) -> Iterator[Any]:
    """Yield the object of a method, the arguments of a partial function, and the variables of a function."""
    if isinstance(hook, functools.partial):
        yield from (*hook.args, *hook.keywords.values())
        yield from _referred(hook.func)
    elif isinstance(hook, types.MethodType):
        yield hook.__self__
    elif isinstance(hook, types.FunctionType):
        for cell in hook.__closure__ or ():
            content = cell.cell_contents
            if isinstance(content, (functools.partial, types.MethodType, types.FunctionType)):
                yield from _referred(content)
            else:
                yield cell if isinstance(content, SCALARS) else content
        if is_script_class(hook):  # type: ignore[arg-type]
            variables = (hook.__globals__.get(name) for name in hook.__code__.co_names)
            yield from (one for one in variables if isinstance(one, _IN_PLACE))
    elif not isinstance(hook, types.BuiltinFunctionType):
        yield hook


def _attributes(owner: Any) -> list[str]:
    if isinstance(owner, types.CellType):
        return ["cell_contents"]
    slots = [name for kind in type(owner).__mro__ for name in getattr(kind, "__slots__", ())]
    return [name for name in (*slots, *getattr(owner, "__dict__", {})) if hasattr(owner, name)]


def _read(place: _Place) -> Any:
    owner, name = place
    return owner if name == _CONTENT else getattr(owner, name)


def _write(place: _Place, value: Any) -> None:
    owner, name = place
    assigned = assign(_read(place), value)
    if name != _CONTENT:
        setattr(owner, name, assigned)


def _portable(owner: Any, name: str) -> dict[str, Any]:
    value = _read((owner, name))
    try:
        return to_portable(value)
    except NotPlainError as error:
        path = f"the state of a communication hook, {type(owner).__name__}{name and '.'}{name},"
        raise NotPlainError(path, f"is a `{type(value).__qualname__}`, which cannot be saved") from error
