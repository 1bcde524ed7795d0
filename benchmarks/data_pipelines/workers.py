"""Map-style datasets whose state is in worker processes."""

from __future__ import annotations

import multiprocessing
import random

import numpy as np
import torch
from torch.utils.data import get_worker_info

from data_pipelines.map_style import (
    Counting,
    Crops,
    Decoded,
    Epochs,
    FromGlobals,
    FromModule,
    Indexed,
    Lazy,
    LazyLines,
    Mix,
    Stored,
    loader,
)
from data_pipelines.samples import Data, Samples, pipeline

TWO = {"num_workers": 2}
KEPT = {"num_workers": 2, "persistent_workers": True}


@pipeline()
def workers_global_generators():
    return loader(FromGlobals(), **TWO)


@pipeline()
def persistent_global_generators():
    return loader(FromGlobals(), **KEPT)


@pipeline()
def workers_stored_generator():
    return loader(Stored(np.random.default_rng(0)), **TWO)


@pipeline()
def persistent_stored_generator():
    return loader(Stored(np.random.default_rng(0)), **KEPT)


@pipeline()
def workers_generator_at_first_use():
    return loader(Lazy(), **TWO)


@pipeline()
def persistent_generator_at_first_use():
    return loader(Lazy(), **KEPT)


@pipeline()
def workers_generator_of_the_file():
    return loader(FromModule(), **TWO)


@pipeline()
def workers_generator_of_collate_fn():
    return loader(Samples(), collate_fn=Mix(), **TWO)


def seed_dataset(worker_id):
    """Give the dataset of a worker its own generator."""
    get_worker_info().dataset.generator = np.random.default_rng(get_worker_info().seed % 1000 + worker_id)


@pipeline()
def worker_init_fn_sets_a_generator():
    return loader(Stored(None), worker_init_fn=seed_dataset, **TWO)


@pipeline()
def worker_init_fn_sets_a_generator_persistent():
    return loader(Stored(None), worker_init_fn=seed_dataset, **KEPT)


def seed_globals(worker_id):
    """Seed the global generators of a worker."""
    np.random.seed(torch.initial_seed() % 2**32 + worker_id)
    random.seed(worker_id)


@pipeline()
def worker_init_fn_seeds_global_generators():
    return loader(FromGlobals(), worker_init_fn=seed_globals, **TWO)


@pipeline()
def workers_count_of_samples():
    return loader(Counting(), **TWO)


@pipeline()
def persistent_count_of_samples():
    return loader(Counting(), **KEPT)


@pipeline()
def workers_cache_of_random_crops():
    return loader(Crops(), **TWO)


@pipeline()
def persistent_cache_of_random_crops():
    return loader(Crops(), **KEPT)


@pipeline()
def persistent_cache_of_decoded_samples():
    return loader(Decoded(), **KEPT)


@pipeline()
def workers_file_opened_at_first_use():
    return loader(LazyLines(), **TWO)


@pipeline()
def workers_set_epoch():
    dataset = Epochs()
    return Data(loader(dataset, **TWO), epoch_start=lambda module: dataset.set_epoch(module.current_epoch + 1))


@pipeline()
def persistent_set_epoch():
    dataset = Epochs()
    return Data(loader(dataset, **KEPT), epoch_start=lambda module: dataset.set_epoch(module.current_epoch + 1))


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
    return Data(loader(dataset), epoch_start=lambda module: dataset.set_epoch(module.current_epoch + 1))


@pipeline()
def workers_set_epoch_in_shared_memory():
    dataset = SharedEpochs()
    # no change in the first epoch, whose workers may already read: it would not be reproducible
    return Data(loader(dataset, **TWO), epoch_start=lambda module: dataset.set_epoch(module.current_epoch))


@pipeline()
def workers_indices_shuffled_in_place():
    dataset = Indexed()
    return Data(loader(dataset, **TWO), epoch_start=lambda module: random.shuffle(dataset.indices))
