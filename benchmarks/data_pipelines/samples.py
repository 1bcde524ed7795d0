"""The samples of all pipelines, and the registry of the pipelines."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

COUNT, BATCH, FEATURES = 48, 8, 8
BATCHES = COUNT // BATCH
X = torch.randn(COUNT, FEATURES, generator=torch.Generator().manual_seed(0))
Y = (2 * X[:, 0] + X[:, 1] > 0).long()


@dataclass
class Data:
    """What a pipeline trains with.

    Args:
        loader: Training loader, or a function of the module that returns it, as `train_dataloader` does.
        epoch_start: Called with the module in `on_train_epoch_start`.
        after_step: Called with the module, the batch and the loss of each sample after each batch.
        validation: Validation loader; by default one of plain samples.
        options: Options of the Trainer.

    """

    loader: Any
    epoch_start: Callable[[Any], None] = lambda module: None
    after_step: Callable[[Any, Any, torch.Tensor], None] = lambda module, batch, losses: None
    validation: Any = None
    options: dict[str, Any] = field(default_factory=dict)


PIPELINES: dict[str, Callable[[], Data]] = {}
REQUIREMENTS: dict[str, tuple[str, ...]] = {}


def register(name: str, make: Callable[[], Any], *packages: str) -> None:
    """Register a pipeline: a function that returns `Data` or a loader, and the packages that it needs.

    Raises:
        ValueError: If another pipeline has that name.

    """
    if name in PIPELINES:
        raise ValueError(f"There are two pipelines with the name `{name}`. Rename one of them.")
    PIPELINES[name], REQUIREMENTS[name] = make, packages


def pipeline(*packages: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Register the decorated function under its name."""

    def decorate(function: Callable[[], Any]) -> Callable[[], Any]:
        register(function.__name__, function, *packages)
        return function

    return decorate


def missing(name: str) -> list[str]:
    """Return the packages that a pipeline needs and that are not installed."""
    return [package for package in REQUIREMENTS[name] if find_spec(package) is None]


def written(name: str, write: Callable[[Path], None]) -> Path:
    """Return a file or directory of that name in the working directory of the run, where `write` creates it once.

    It is complete as soon as it has that name: several processes may ask for it at the same time.
    """
    path = Path.cwd() / name
    if not path.exists():
        temporary = path.with_name(f"{name}.{os.getpid()}")
        write(temporary)
        os.replace(temporary, path)
    return path


class Samples(Dataset):
    """Map-style samples with noise that a subclass draws."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        return X[index] + self.noise(index), Y[index], index

    def noise(self, index: int) -> Any:
        """Return what is added to a sample."""
        return 0.0


def loader(dataset: Any, kind: type[DataLoader] = DataLoader, **options: Any) -> DataLoader:
    """Return a shuffled loader."""
    return kind(dataset, **{"batch_size": BATCH, "shuffle": True, **options})


def with_epochs(dataset: Any, loader: Any, first: int = 1) -> Data:
    """Return a pipeline that calls `dataset.set_epoch` before each epoch, with `first` before the first one."""
    return Data(loader, epoch_start=lambda module: dataset.set_epoch(module.current_epoch + first))
