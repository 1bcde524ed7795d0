"""The samples of all pipelines, and the registry of the pipelines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch.utils.data import Dataset

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


def pipeline(*packages: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Register a function that returns `Data` or a loader; it needs these packages."""

    def register(function: Callable[[], Any]) -> Callable[[], Any]:
        PIPELINES[function.__name__], REQUIREMENTS[function.__name__] = function, packages
        return function

    return register


def missing(name: str) -> list[str]:
    """Return the packages that a pipeline needs and that are not installed."""
    return [package for package in REQUIREMENTS[name] if find_spec(package) is None]


class Samples(Dataset):
    """Map-style samples with noise that a subclass draws."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        return X[index] + self.noise(index), Y[index], index

    def noise(self, index: int) -> Any:
        """Return what is added to a sample."""
        return 0.0
