"""Map-style datasets whose state is in worker processes: `workers_*` start in each epoch, `persistent_*` once."""

from __future__ import annotations

import multiprocessing
import random
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from data_pipelines.generators import FromGlobals, FromModule, Lazy, Mix, Stored
from data_pipelines.kept_data import Counting, Crops, Decoded, Epochs, Indexed, LazyLines
from data_pipelines.samples import Data, Samples, loader, pipeline, register, with_epochs

WORKERS = {
    "workers": {"num_workers": 2},
    "persistent": {"num_workers": 2, "persistent_workers": True},
}


def seed_dataset(worker_id):
    """Give the dataset of a worker its own generator."""
    get_worker_info().dataset.generator = np.random.default_rng(get_worker_info().seed % 1000 + worker_id)


def seed_globals(worker_id):
    """Seed the global generators of a worker."""
    np.random.seed(torch.initial_seed() % 2**32 + worker_id)
    random.seed(worker_id)


def with_generator(**options: Any) -> Any:
    return loader(Stored(np.random.default_rng(0)), **options)


def with_mix(**options: Any) -> Any:
    return loader(Samples(), collate_fn=Mix(), **options)


def with_set_epoch(**options: Any) -> Any:
    dataset = Epochs()
    return with_epochs(dataset, loader(dataset, **options))


LOADERS = {
    "global_generators": lambda **options: loader(FromGlobals(), **options),
    "stored_generator": with_generator,
    "generator_at_first_use": lambda **options: loader(Lazy(), **options),
    "generator_of_the_file": lambda **options: loader(FromModule(), **options),
    "generator_of_collate_fn": with_mix,
    "init_fn_sets_a_generator": lambda **options: loader(Stored(None), worker_init_fn=seed_dataset, **options),
    "init_fn_seeds_global_generators": lambda **options: loader(FromGlobals(), worker_init_fn=seed_globals, **options),
    "count_of_samples": lambda **options: loader(Counting(), **options),
    "cache_of_random_crops": lambda **options: loader(Crops(), **options),
    "cache_of_decoded_samples": lambda **options: loader(Decoded(), **options),
    "file_opened_at_first_use": lambda **options: loader(LazyLines(), **options),
    "set_epoch": with_set_epoch,
}
for kind, options in WORKERS.items():
    for name, make in LOADERS.items():
        register(f"{kind}_{name}", partial(make, **options))


class SharedEpochs(Epochs):
    """The epoch is in shared memory, so that persistent workers see it."""

    def __init__(self):
        self.shared = multiprocessing.Value("i", 0)

    def set_epoch(self, epoch):
        self.shared.value = epoch

    @property
    def epoch(self):
        return self.shared.value


@pipeline()
def set_epoch_in_shared_memory():
    dataset = SharedEpochs()
    return with_epochs(dataset, loader(dataset))


@pipeline()
def workers_set_epoch_in_shared_memory():
    dataset = SharedEpochs()
    # no change in the first epoch, whose workers may already read: it would not be reproducible
    return with_epochs(dataset, loader(dataset, **WORKERS["workers"]), first=0)


@pipeline()
def workers_indices_shuffled_in_place():
    dataset = Indexed()
    data = loader(dataset, **WORKERS["workers"])
    return Data(data, epoch_start=lambda module: random.shuffle(dataset.indices))
