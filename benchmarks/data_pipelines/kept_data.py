"""Map-style datasets that keep data from one sample to the next: counts, indices, caches, buffers, open files."""

from __future__ import annotations

import collections
import random
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from data_pipelines.samples import COUNT, FEATURES, Data, Samples, X, Y, loader, pipeline, with_epochs, written


class Counting(Samples):
    """A curriculum: noise by the number of samples that have been read."""

    calls = 0

    def noise(self, index):
        self.calls += 1
        return self.calls / 100


@pipeline()
def count_of_samples():
    return loader(Counting())


@pipeline()
def count_that_validation_shares():
    dataset = Counting()
    return Data(loader(dataset), validation=DataLoader(Subset(dataset, range(16)), 8))


class ClassCounting(Samples):
    """A curriculum: the count is an attribute of the class."""

    calls = 0

    def noise(self, index):
        type(self).calls += 1
        return self.calls / 100


@pipeline()
def count_of_the_class():
    return loader(ClassCounting())


class Indexed(Dataset):
    """Samples in the order of a list of indices."""

    def __init__(self):
        self.indices = list(range(COUNT))

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return X[self.indices[index]], Y[self.indices[index]]


@pipeline()
def indices_shuffled_in_place():
    dataset = Indexed()
    return Data(loader(dataset, shuffle=False), epoch_start=lambda module: random.shuffle(dataset.indices))


@pipeline()
def indices_of_a_subset():
    data = TensorDataset(X, Y)
    part = Subset(data, list(range(COUNT)))
    return Data(loader(part), epoch_start=lambda module: random.shuffle(part.indices))


@pipeline()
def indices_in_an_array():
    dataset = Indexed()
    dataset.indices = np.arange(COUNT)
    return Data(loader(dataset), epoch_start=lambda module: np.random.shuffle(dataset.indices))


class Epochs(Samples):
    """Noise by the epoch and the index."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def noise(self, index):
        return float(torch.rand(1, generator=torch.Generator().manual_seed(1000 * self.epoch + index)))


@pipeline()
def set_epoch_of_a_dataset():
    dataset = Epochs()
    return with_epochs(dataset, loader(dataset))


@pipeline()
def set_epoch_of_a_nested_dataset():
    dataset = Epochs()
    nested = ConcatDataset([Subset(dataset, range(24)), Subset(dataset, range(24, COUNT))])
    return with_epochs(dataset, loader(nested))


class Crops(Samples):
    """Random crops that are drawn once for each sample and cached."""

    def __init__(self):
        self.cache = {}

    def noise(self, index):
        if index not in self.cache:
            self.cache[index] = torch.randn(FEATURES)
        return self.cache[index]


@pipeline()
def cache_of_random_crops():
    return loader(Crops())


class Decoded(Samples):
    """Samples that are computed once and cached."""

    def __init__(self):
        self.cache = [None] * COUNT

    def noise(self, index):
        if self.cache[index] is None:
            self.cache[index] = X[index].square()
        return self.cache[index]


@pipeline()
def cache_of_decoded_samples():
    return loader(Decoded())


class Hard(Samples):
    """Samples with a difficulty that the training updates."""

    def __init__(self):
        self.difficulty = np.ones(COUNT, np.float32)

    def noise(self, index):
        return float(self.difficulty[index])


@pipeline()
def difficulty_by_the_loss():
    dataset = Hard()

    def update(module, batch, losses):
        dataset.difficulty[batch[2].numpy()] = losses.numpy()

    return Data(loader(dataset), after_step=update)


class Replay(Dataset):
    """Samples of a replay buffer that the training fills."""

    def __init__(self):
        self.buffer = collections.deque((x.clone() for x in X), maxlen=COUNT)

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return self.buffer[index], index


@pipeline()
def replay_buffer():
    dataset = Replay()

    def append(module, batch, losses):
        dataset.buffer.extend(x * 0.9 + loss for x, loss in zip(batch[0][:2], losses, strict=False))

    return Data(loader(dataset), after_step=append)


def written_lines() -> Path:
    """Return a file with one number on each line."""
    text = "".join(f"{number % 97 / 50:.4f}\n" for number in range(COUNT * 10))
    return written("lines.txt", lambda path: path.write_text(text))


class Lines(Samples):
    """Noise from the next line of an open file."""

    def __init__(self, mode="r"):
        self.file = open(written_lines(), mode)  # noqa: SIM115

    def noise(self, index):
        return float(self.file.readline())


@pipeline()
def open_text_file():
    return loader(Lines())


@pipeline()
def open_binary_file():
    return loader(Lines("rb"))


class LazyLines(Samples):
    """Noise from the next line of a file that is opened at first use."""

    file = None

    def noise(self, index):
        if self.file is None:
            self.file = open(written_lines())  # noqa: SIM115
        return float(self.file.readline())


@pipeline()
def file_opened_at_first_use():
    return loader(LazyLines())


def noises():
    """Yield numbers for ever."""
    generator = np.random.default_rng(9)
    while True:
        yield generator.random()


class LazyIterator(Samples):
    """Noise from a generator function that is started at first use."""

    iterator = None

    def noise(self, index):
        if self.iterator is None:
            self.iterator = noises()
        return next(self.iterator)


@pipeline()
def iterator_at_first_use():
    return loader(LazyIterator())


class MetaTensor(torch.Tensor):
    """A tensor with a name, as those of medical imaging."""

    def __deepcopy__(self, memo):
        return self.clone()


class Meta(Samples):
    """Samples of a tensor subclass."""

    def __getitem__(self, index):
        return X[index].as_subclass(MetaTensor)


@pipeline()
def tensor_subclass():
    return loader(Meta(), collate_fn=lambda samples: torch.stack(list(samples)))
