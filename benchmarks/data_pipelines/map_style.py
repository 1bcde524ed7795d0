"""Map-style datasets that keep a state in this process, their transforms and collate functions."""

from __future__ import annotations

import collections
import functools
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate

from data_pipelines.samples import BATCH, COUNT, FEATURES, Data, Samples, X, Y, pipeline

RNG = np.random.default_rng(11)


def loader(dataset: Any, **options: Any) -> DataLoader:
    """Return a shuffled loader."""
    return DataLoader(dataset, **{"batch_size": BATCH, "shuffle": True, **options})


@pipeline()
def plain():
    return loader(TensorDataset(X, Y))


class FromGlobals(Samples):
    """Noise from the global generators."""

    def noise(self, index):
        return 0.1 * (torch.randn(FEATURES) + np.random.rand() + random.random())


@pipeline()
def global_generators():
    return loader(FromGlobals())


@pipeline()
def subset():
    return loader(torch.utils.data.random_split(FromGlobals(), [COUNT, 0])[0])


class Stored(Samples):
    """Noise from a generator that the dataset keeps."""

    def __init__(self, generator):
        self.generator = generator

    def noise(self, index):
        if isinstance(self.generator, torch.Generator):
            return float(torch.rand(1, generator=self.generator))
        return self.generator.random()


@pipeline()
def generator_of_numpy():
    return loader(Stored(np.random.default_rng(0)))


@pipeline()
def generator_of_torch():
    return loader(Stored(torch.Generator().manual_seed(0)))


@pipeline()
def generator_of_python():
    return loader(Stored(random.Random(0)))


@pipeline()
def generator_without_seed():
    return loader(Stored(np.random.default_rng(np.random.randint(1000))))


class Lazy(Samples):
    """Two generators that are created at first use; they are the same object."""

    generator = None

    def noise(self, index):
        if self.generator is None:
            self.generator = np.random.default_rng(7)
            self.transforms = [self.generator]
        return self.generator.random() + self.transforms[0].random()


@pipeline()
def generator_at_first_use():
    return loader(Lazy())


class FromModule(Samples):
    """Noise from a generator that is a variable of the file."""

    def noise(self, index):
        return RNG.random()


@pipeline()
def generator_of_the_file():
    return loader(FromModule())


class FromClass(Samples):
    """Noise from a generator of the class."""

    generator = random.Random(3)

    def noise(self, index):
        return self.generator.random()


@pipeline()
def generator_of_the_class():
    return loader(FromClass())


class Jitter:
    """A transform with a generator."""

    def __init__(self, generator):
        self.generator = generator

    def __call__(self, x):
        return x + 0.1 * self.generator.standard_normal(FEATURES).astype(np.float32)


class Transformed(Samples):
    """Samples with nested transforms."""

    def __init__(self, transforms):
        self.transforms = transforms

    def __getitem__(self, index):
        x = X[index]
        for transform in self.transforms:
            x = transform(x)
        return x, Y[index]


@pipeline()
def generator_of_transforms():
    shared = np.random.default_rng(1)
    return loader(Transformed([Jitter(shared), Jitter(shared), Jitter(np.random.RandomState(2))]))


@pipeline()
def generator_in_a_closure():
    generator = np.random.default_rng(4)

    def jitter(x):
        return x + generator.random()

    return loader(Transformed([jitter, functools.partial(_add, generator=np.random.default_rng(5))]))


def _add(x, generator):
    return x + generator.random()


class Mix:
    """A collate function with a generator, as for mixup."""

    def __init__(self):
        self.generator = np.random.default_rng(2)

    def __call__(self, samples):
        x, *rest = default_collate(samples)
        return [x + float(self.generator.beta(0.4, 0.4)) * x.flip(0), *rest]


@pipeline()
def generator_of_collate_fn():
    return loader(Samples(), collate_fn=Mix())


@pipeline()
def collate_fn_with_a_bound_method():
    return loader(Samples(), collate_fn=Mix().__call__)


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
    return Data(loader(dataset), epoch_start=lambda module: dataset.set_epoch(module.current_epoch + 1))


@pipeline()
def set_epoch_of_a_nested_dataset():
    dataset = Epochs()
    nested = torch.utils.data.ConcatDataset([Subset(dataset, range(24)), Subset(dataset, range(24, COUNT))])
    return Data(loader(nested), epoch_start=lambda module: dataset.set_epoch(module.current_epoch + 1))


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
    path = Path(tempfile.gettempdir()) / "lightning_green_pipelines.txt"
    path.write_text("".join(f"{number % 97 / 50:.4f}\n" for number in range(COUNT * 10)))
    return path


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
