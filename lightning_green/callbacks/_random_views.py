"""Detection of random augmentation, with which a cache of a teacher's outputs never hits."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import IterableDataset

_MESSAGE = (
    "`cache` should be None, because the views are random and not seeded: no input occurs twice, so no output of the "
    "teacher can be reused. Seed the augmentation by the sample's index, or train without a cache."
)


def check_dataset(trainer: pl.Trainer) -> None:
    """Raise a ``ValueError`` if the training data set returns different tensors for the same index.

    The states of the random generators do not change. A stream cannot be checked by index; see ``check_hits``.
    """
    dataset = getattr(trainer.train_dataloader, "dataset", None)
    # Every `IterableDataset` has a `__getitem__`, which raises.
    by_index = hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)
    if dataset is None or not (by_index and hasattr(dataset, "__len__")) or not len(dataset):
        return
    with isolate_rng(include_cuda=False):
        first, second = (_tensors(dataset[0]) for _ in range(2))
    if len(first) != len(second) or not all(map(_are_equal, first, second)):
        raise ValueError(_MESSAGE)


def check_hits(trainer: pl.Trainer, hits: int) -> None:
    """Raise a ``ValueError`` if the cache has no hit after the first batches of the second epoch."""
    last = min(10, int(trainer.num_training_batches)) - 1
    if trainer.current_epoch >= 1 and trainer.fit_loop.epoch_loop.batch_idx >= last and hits == 0:
        raise ValueError(_MESSAGE)


def _tensors(item: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(item)
    return [torch.as_tensor(leaf) for leaf in leaves if isinstance(leaf, Tensor) or _is_numeric_array(leaf)]


def _is_numeric_array(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc"


def _are_equal(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same shape and values; NaN is equal to NaN."""
    same_kind = (one.shape, one.dtype) == (other.shape, other.dtype)
    return same_kind and torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)
