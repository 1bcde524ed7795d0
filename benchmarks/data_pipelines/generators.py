"""Map-style datasets, transforms and collate functions with random generators, in this process."""

from __future__ import annotations

import functools
import random

import numpy as np
import torch
from torch.utils.data import TensorDataset, default_collate

from data_pipelines.samples import COUNT, FEATURES, Samples, X, Y, loader, pipeline

RNG = np.random.default_rng(11)


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
