"""Training data of ``resume_training.py``: loaders, samplers and streams of every kind, with random augmentation."""

import math
import random
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, Sampler, get_worker_info


class Samples(Dataset):
    """Samples with random augmentation from the generators of torch, NumPy and Python."""

    def __init__(self, count, offset=0):
        generator = torch.Generator().manual_seed(offset + 1)
        self.x, self.offset = torch.randn(count, 4, generator=generator), offset

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        noise = 0.1 * torch.randn(4) + 0.1 * float(np.random.rand()) + 0.1 * random.random()
        return index + self.offset, self.x[index] + noise, int(self.x[index].sum() > 0)


class Stream(IterableDataset):
    """The same samples as a stream, shuffled in every pass and split over worker processes."""

    def __init__(self, count, sized=True):
        self.inner, self.count = Samples(count), count
        if sized:
            self.__class__ = SizedStream

    def __iter__(self):
        info = get_worker_info()
        own = torch.arange(self.count)
        if info is not None:
            own = own[info.id :: info.num_workers]
        for index in own[torch.randperm(len(own))].tolist():
            yield self.inner[index]


class SizedStream(Stream):
    def __len__(self):
        return self.count


class StatefulLoader:
    """A loader with a ``state_dict`` and a deterministic order."""

    def __init__(self, samples, batch):
        self.samples, self.batch, self.passes, self.at = samples, batch, 0, 0

    def __len__(self):
        return math.ceil(len(self.samples) / self.batch)

    def __iter__(self):
        if self.at == len(self):  # Lightning does not exhaust a loader of known length
            self.at, self.passes = 0, self.passes + 1
        order = torch.randperm(len(self.samples), generator=torch.Generator().manual_seed(self.passes)).tolist()
        while self.at < len(self):
            chosen = order[self.at * self.batch : (self.at + 1) * self.batch]
            self.at += 1
            yield torch.utils.data.default_collate([self.samples[index] for index in chosen])

    def state_dict(self):
        return {"passes": self.passes, "at": self.at}

    def load_state_dict(self, state):
        self.passes, self.at = state["passes"], state["at"]


class Batches:
    """An iterable, neither a loader nor a data set, that yields batches in random order."""

    def __init__(self, samples, batch):
        self.samples, self.batch = samples, batch

    def __iter__(self):
        order = torch.randperm(len(self.samples)).tolist()
        for at in range(0, len(order), self.batch):
            yield torch.utils.data.default_collate([self.samples[index] for index in order[at : at + self.batch]])


class Unsized:
    """The wrapped iterable without a length."""

    def __init__(self, inner):
        self.inner = inner

    def __iter__(self):
        return iter(self.inner)

    def __getattr__(self, name):
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)


class Drawing(Sampler):
    """A sampler that draws from all generators during the iteration."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __iter__(self):
        for _ in range(self.count):
            yield (
                int(torch.randint(self.count, (1,))) + random.randrange(self.count) + np.random.randint(9)
            ) % self.count


def loaders(case):
    """Return the training loaders of a case."""
    kind, batch = case.data, 4
    common = {"num_workers": case.workers, "persistent_workers": case.persistent}
    samples = Samples(case.samples)
    if kind == "plain":
        return DataLoader(samples, batch_size=batch, shuffle=True, **common)
    if kind == "generator":
        generator = torch.Generator().manual_seed(7)
        return DataLoader(samples, batch_size=batch, shuffle=True, generator=generator, **common)
    if kind == "sampler":
        return DataLoader(samples, batch_size=batch, sampler=Drawing(case.samples), **common)
    if kind == "batch sampler":
        return DataLoader(samples, batch_sampler=BatchSampler(Drawing(case.samples), batch, drop_last=False), **common)
    if kind in ("max_size_cycle", "min_size", "max_size", "sequential"):
        short = DataLoader(Samples(12, offset=100), batch_size=batch, shuffle=True, **common)
        return CombinedLoader({"long": DataLoader(samples, batch, shuffle=True, **common), "short": short}, mode=kind)
    if kind == "stream":
        return DataLoader(Stream(case.samples), batch_size=batch, **common)
    if kind == "length-less stream":
        return DataLoader(Stream(case.samples, sized=False), batch_size=batch, **common)
    if kind == "length-less sampler":
        unsized = Unsized(BatchSampler(RandomSampler(samples), batch, drop_last=False))
        return DataLoader(samples, batch_sampler=unsized, **common)
    if kind == "stateful":
        return StatefulLoader(samples, batch)
    if kind == "length-less stateful":
        return Unsized(StatefulLoader(samples, batch))
    if kind == "iterable":
        return Batches(samples, batch)
    raise AssertionError(kind)


class Data(pl.LightningDataModule):
    """The data of a case as a data module."""

    def __init__(self, case):
        super().__init__()
        self.case = case

    def train_dataloader(self):
        return loaders(replace(self.case, data="plain"))

    def val_dataloader(self):
        return validation(self.case)


def validation(case):
    return DataLoader(Samples(8, offset=50), batch_size=4, num_workers=case.workers)
