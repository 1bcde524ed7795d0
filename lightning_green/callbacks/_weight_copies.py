"""Copies of a network's weights that change during a training, such as moving averages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor, nn

from lightning_green._lightning.namespaces import both
from lightning_green.callbacks._compression import callbacks_of
from lightning_green.compression.pruning.parameters import plain_name

Shapes = tuple[tuple[str, torch.Size], ...]


class WeightCopies:
    """Modules with the parameters of a network that no optimizer updates, and that the training changes nevertheless.

    Such a copy is a moving average of the network's weights: an ``AveragedModel``, a deep copy that the module updates
    itself, or one inside of another callback. A frozen teacher has the same parameters and never changes.

    Args:
        trainer: The Trainer, after its optimizers are set up.
        pl_module: The module.
        networks: Networks of the module, by path.

    """

    def __init__(self, trainer: pl.Trainer, pl_module: pl.LightningModule, networks: Mapping[str, nn.Module]) -> None:
        trained = {id(p) for o in trainer.optimizers for group in o.param_groups for p in group["params"]}
        paths = {_shapes(network): path for path, network in networks.items() if _any_in(trained, network)}
        self._copies: dict[str, tuple[str, nn.Module]] = {}
        for place, module in _modules(pl_module, callbacks_of(trainer)):
            path = paths.get(_shapes(module))
            inside = any(place.startswith(f"{outer}.") for outer in self._copies)
            if path is None or inside or _any_in(trained, module):
                continue
            if not _any_in({id(p) for p in networks[path].parameters()}, module):  # else the network by another name
                self._copies[place] = path, module
        self._norms = {place: _norms(module) for place, (_, module) in self._copies.items()}

    def changed(self) -> dict[str, tuple[str, nn.Module]]:
        """Return the copies that have changed so far by place, each with the path of its network.

        This waits for the device, unless there is no copy.
        """
        return {place: copy for place, copy in self._copies.items() if _norms(copy[1]) != self._norms[place]}

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the parameters of the changed copies, each with the name of the module's parameter it is a copy of."""
        for path, module in self.changed().values():
            for name, parameter in module.named_parameters():
                yield f"{path}.{name}" if path else name, parameter

    def names(self, pl_module: pl.LightningModule) -> set[str]:
        """Return the names of the module's parameters that belong to copies, changed or not."""
        own = {id(p) for _, module in self._copies.values() for p in module.parameters()}
        return {name for name, p in pl_module.named_parameters() if id(p) in own}


def _modules(pl_module: nn.Module, callbacks: Iterable[Callback]) -> Iterator[tuple[str, nn.Module]]:
    yield from ((name, module) for name, module in pl_module.named_modules() if name)
    for callback in callbacks:
        if isinstance(callback, both(WeightAveraging)) or hasattr(callback, "compression_order"):
            continue  # averages of its own kind, or a teacher
        for attribute, value in vars(callback).items():
            if isinstance(value, nn.Module) and value is not pl_module:
                for name, module in value.named_modules():
                    yield f"{type(callback).__name__}.{attribute}{'.' if name else ''}{name}", module


def _any_in(ids: set[int], module: nn.Module) -> bool:
    return any(id(p) in ids for p in module.parameters())


def _shapes(module: nn.Module) -> Shapes:
    return tuple((plain_name(name), parameter.shape) for name, parameter in module.named_parameters())


def _norms(module: nn.Module) -> list[float]:
    """Return what an update changes, also one of ``parameter.data``, which no version counter notices."""
    with torch.no_grad():
        return [float(norm) for norm in torch._foreach_norm(list(module.parameters()))]
