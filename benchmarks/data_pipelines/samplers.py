"""Samplers and batch samplers that keep a state."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, TensorDataset, WeightedRandomSampler

from data_pipelines.samples import BATCH, BATCHES, COUNT, Data, Samples, X, Y, loader, pipeline


class Passes(Sampler):
    """A permutation by the number of the pass."""

    def __init__(self):
        self.passes = 0

    def __len__(self):
        return COUNT

    def __iter__(self):
        self.passes += 1
        yield from np.random.default_rng(self.passes).permutation(COUNT).tolist()


@pipeline()
def sampler_counts_its_passes():
    return loader(Samples(), shuffle=False, sampler=Passes())


@pipeline()
def sampler_counts_its_passes_workers():
    return loader(Samples(), shuffle=False, sampler=Passes(), num_workers=2)


class Nested(Sampler):
    """A sampler around one that counts."""

    def __init__(self):
        self.inner = [Passes()]

    def __len__(self):
        return COUNT

    def __iter__(self):
        return iter(self.inner[0])


@pipeline()
def sampler_in_a_sampler():
    return loader(Samples(), shuffle=False, sampler=Nested())


class Buckets(Sampler):
    """Batches in the order of a generator of its own."""

    def __init__(self):
        self.generator = np.random.default_rng(1)

    def __len__(self):
        return BATCHES

    def __iter__(self):
        yield from self.generator.permutation(COUNT).reshape(BATCHES, BATCH).tolist()


@pipeline()
def batch_sampler_with_a_generator():
    return DataLoader(Samples(), batch_sampler=Buckets())


class LazyBuckets(Buckets):
    """The generator is created at first use."""

    def __init__(self):
        self.generator = None

    def __iter__(self):
        if self.generator is None:
            self.generator = np.random.default_rng(1)
        return super().__iter__()


@pipeline()
def batch_sampler_with_a_generator_at_first_use():
    return DataLoader(Samples(), batch_sampler=LazyBuckets())


class Shuffled(Sampler):
    """Indices that each pass shuffles in place."""

    def __init__(self):
        self.indices = list(range(COUNT))

    def __len__(self):
        return COUNT

    def __iter__(self):
        random.shuffle(self.indices)
        return iter(self.indices)


@pipeline()
def sampler_shuffles_in_place():
    return loader(Samples(), shuffle=False, sampler=Shuffled())


@pipeline()
def sampler_shuffles_in_place_workers():
    return loader(Samples(), shuffle=False, sampler=Shuffled(), num_workers=2)


class Leftovers(Sampler):
    """Batches of two groups; what does not fill a batch is kept for the next pass."""

    def __init__(self):
        self.left = []

    def __len__(self):
        return BATCHES - 1

    def __iter__(self):
        waiting = [*self.left, *torch.randperm(COUNT - 3).tolist()]
        for number in range(len(self)):
            yield waiting[number * BATCH : (number + 1) * BATCH]
        self.left = waiting[len(self) * BATCH :]


@pipeline()
def batch_sampler_keeps_leftovers():
    return DataLoader(Samples(), batch_sampler=Leftovers())


class EpochSampler(Passes):
    """A permutation by the epoch, which the user sets."""

    epoch = 0

    def set_the_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        yield from np.random.default_rng(self.epoch).permutation(COUNT).tolist()


@pipeline()
def epoch_of_a_sampler():
    sampler = EpochSampler()
    data = loader(Samples(), shuffle=False, sampler=sampler)
    return Data(data, epoch_start=lambda module: sampler.set_the_epoch(module.current_epoch + 1))


class EpochBatches(EpochSampler):
    """The same in batches."""

    def __len__(self):
        return BATCHES

    def __iter__(self):
        yield from np.array(list(super().__iter__())).reshape(BATCHES, BATCH).tolist()


@pipeline()
def epoch_of_a_batch_sampler():
    sampler = EpochBatches()
    data = DataLoader(Samples(), batch_sampler=sampler)
    return Data(data, epoch_start=lambda module: sampler.set_the_epoch(module.current_epoch + 1))


@pipeline()
def weights_by_the_loss():
    sampler = WeightedRandomSampler(torch.ones(COUNT, dtype=torch.double), COUNT)

    def update(module, batch, losses):
        sampler.weights[batch[2]] = losses.double() + 0.1

    return Data(loader(Samples(), shuffle=False, sampler=sampler), after_step=update)


@pipeline()
def weights_by_the_epoch():
    sampler = WeightedRandomSampler(torch.ones(COUNT, dtype=torch.double), COUNT)

    def update(module):
        sampler.weights = 0.1 + torch.arange(COUNT, dtype=torch.double) % (module.current_epoch + 2)

    return Data(loader(Samples(), shuffle=False, sampler=sampler), epoch_start=update)


class Priorities(Sampler):
    """Draws each index by priorities that the training writes."""

    def __init__(self):
        self.priorities = torch.ones(COUNT)

    def __len__(self):
        return COUNT

    def __iter__(self):
        for _ in range(COUNT):
            yield int(torch.multinomial(self.priorities, 1))


@pipeline()
def priorities_by_the_loss():
    sampler = Priorities()

    def update(module, batch, losses):
        sampler.priorities[batch[2]] = losses + 0.1

    return Data(loader(Samples(), shuffle=False, sampler=sampler), after_step=update)


@pipeline()
def priorities_by_the_loss_workers():
    sampler = Priorities()

    def update(module, batch, losses):
        sampler.priorities[batch[2]] = losses + 0.1

    return Data(loader(Samples(), shuffle=False, sampler=sampler, num_workers=2), after_step=update)


class Unsized:
    """Batches without a known number, in the order of a count of passes."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        order = np.random.default_rng(self.passes).permutation(COUNT)
        yield from order.reshape(BATCHES, BATCH).tolist()


@pipeline()
def batch_sampler_without_a_length():
    return DataLoader(TensorDataset(X, Y), batch_sampler=Unsized())


@pipeline()
def batch_sampler_without_a_length_workers():
    return DataLoader(TensorDataset(X, Y), batch_sampler=Unsized(), num_workers=2)
