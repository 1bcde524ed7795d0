"""Iterable datasets, loaders of one's own, combinations of loaders, and loaders that are reloaded."""

from __future__ import annotations

import collections
import itertools
import random

import numpy as np
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, get_worker_info

from data_pipelines.generators import FromGlobals
from data_pipelines.kept_data import noises, written_lines
from data_pipelines.samples import BATCH, BATCHES, COUNT, Data, X, Y, loader, pipeline, with_epochs


class Stream(IterableDataset):
    """Samples in an order that a subclass chooses."""

    def __iter__(self):
        info = get_worker_info()
        order = list(self.order())
        for index in order if info is None else order[info.id :: info.num_workers]:
            yield X[index], Y[index]

    def order(self):
        """Return the indices of a pass."""
        return torch.randperm(COUNT).tolist()


@pipeline()
def stream():
    return DataLoader(Stream(), BATCH)


@pipeline()
def stream_workers():
    return DataLoader(Stream(), BATCH, num_workers=2)


class Passes(Stream):
    """An order by the number of the pass."""

    passes = 0

    def order(self):
        self.passes += 1
        return np.random.default_rng(self.passes).permutation(COUNT)


@pipeline()
def stream_counts_its_passes():
    return DataLoader(Passes(), BATCH)


class Around(IterableDataset):
    """A stream around another one."""

    def __init__(self, inner):
        self.inner = inner

    def __iter__(self):
        return iter(self.inner)


@pipeline()
def stream_in_a_stream():
    return DataLoader(Around(Around(Passes())), BATCH)


class Shuffled(Stream):
    """Indices that each pass shuffles in place."""

    def __init__(self):
        self.indices = list(range(COUNT))

    def order(self):
        random.shuffle(self.indices)
        return self.indices


@pipeline()
def stream_shuffles_in_place():
    return DataLoader(Shuffled(), BATCH)


@pipeline()
def stream_shuffles_in_place_workers():
    return DataLoader(Shuffled(), BATCH, num_workers=2)


class Buffered(IterableDataset):
    """A shuffle buffer that is kept from one pass to the next."""

    def __init__(self):
        self.buffer = [X[index] for index in range(10)]

    def __iter__(self):
        for index in range(COUNT):
            place = random.randrange(10)
            yield self.buffer[place]
            self.buffer[place] = X[index]


@pipeline()
def stream_keeps_a_shuffle_buffer():
    return DataLoader(Buffered(), BATCH)


class Epochs(Stream):
    """An order by the epoch, which the user sets."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def order(self):
        return np.random.default_rng(self.epoch).permutation(COUNT)


@pipeline()
def set_epoch_of_a_stream():
    dataset = Epochs()
    return with_epochs(dataset, DataLoader(dataset, BATCH))


@pipeline()
def set_epoch_of_a_stream_workers():
    dataset = Epochs()
    data = DataLoader(dataset, BATCH, num_workers=2)
    return with_epochs(dataset, data)


class Experience(IterableDataset):
    """Samples of a replay buffer that the training fills, as in reinforcement learning."""

    def __init__(self):
        self.buffer = collections.deque((x.clone() for x in X), maxlen=COUNT)

    def __iter__(self):
        for _ in range(COUNT):
            yield self.buffer[int(torch.randint(len(self.buffer), ()))]


@pipeline()
def stream_of_a_replay_buffer():
    dataset = Experience()

    def append(module, batch, losses):
        dataset.buffer.extend(x * 0.9 + loss for x, loss in zip(batch[:2], losses, strict=False))

    return Data(DataLoader(dataset, BATCH), after_step=append)


@pipeline()
def stream_of_the_buffer_of_the_module():
    buffer = collections.deque((x.clone() for x in X), maxlen=COUNT)
    dataset = Experience()
    dataset.buffer = buffer

    def append(module, batch, losses):
        module.buffer = buffer
        buffer.extend(x * 0.9 + loss for x, loss in zip(batch[:2], losses, strict=False))

    return Data(DataLoader(dataset, BATCH), after_step=append)


class File(IterableDataset):
    """Lines of an open file, continued in each pass."""

    def __init__(self):
        self.file = open(written_lines(), "rb")  # noqa: SIM115

    def __iter__(self):
        for index in range(COUNT):
            yield X[index] + float(self.file.readline())


@pipeline()
def stream_of_an_open_file():
    return DataLoader(File(), BATCH)


class Slices:
    """A few batches of an endless stream in each epoch."""

    def __init__(self):
        self.inner = noises()

    def __len__(self):
        return BATCHES

    def __iter__(self):
        for noise in itertools.islice(self.inner, BATCHES):
            yield X[:BATCH] + noise


@pipeline()
def slices_of_an_endless_stream():
    return Slices()


class Batches:
    """A loader of one's own, with a generator and a count."""

    def __init__(self):
        self.generator, self.passes = np.random.default_rng(6), 0

    def __iter__(self):
        self.passes += 1
        for rows in self.generator.permutation(COUNT).reshape(BATCHES, BATCH):
            yield X[rows] + self.passes


@pipeline()
def loader_of_ones_own():
    return Batches()


class Lazy(Batches):
    """The generator is created at first use; batches in a list that each pass shuffles."""

    def __init__(self):
        self.passes, self.rows = 0, np.arange(COUNT).reshape(BATCHES, BATCH)

    def __iter__(self):
        if not hasattr(self, "generator"):
            self.generator = np.random.default_rng(8)
        self.generator.shuffle(self.rows)
        yield from (X[rows] for rows in self.rows)


@pipeline()
def loader_of_ones_own_that_shuffles_in_place():
    return Lazy()


class Cursor(DataLoader):
    """A loader with a state, whose `__iter__` is a generator function that reads batches again to skip them."""

    count = skip = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.skip = state["count"] % len(self)

    def __iter__(self):
        skip, self.skip, self.count = self.skip, 0, 0
        for batch in super().__iter__():
            self.count += 1
            if self.count > skip:
                yield batch


@pipeline()
def state_with_a_generator_function():
    return Cursor(TensorDataset(X, Y), BATCH)


@pipeline()
def state_with_a_generator_function_shuffled():
    return Cursor(TensorDataset(X, Y), BATCH, shuffle=True)


@pipeline()
def state_with_a_generator_function_augmented():
    return Cursor(FromGlobals(), BATCH, shuffle=True)


def _combined(mode, first, second):
    parts = {"map": loader(FromGlobals()), "stream": DataLoader(Stream(), BATCH), "short": loader(Subset(X, range(16)))}
    return CombinedLoader({"first": parts[first], "second": parts[second]}, mode)


@pipeline()
def combined_max_size_cycle():
    return _combined("max_size_cycle", "map", "stream")


@pipeline()
def combined_max_size_cycle_stream_first():
    return _combined("max_size_cycle", "stream", "map")


@pipeline()
def combined_max_size():
    return _combined("max_size", "map", "stream")


@pipeline()
def combined_min_size():
    return _combined("min_size", "stream", "short")


@pipeline()
def combined_sized():
    return _combined("max_size_cycle", "map", "short")


def _reloaded(indices):
    def make(module):
        return loader(Subset(TensorDataset(X, Y), indices(module)))

    return Data(make, options={"reload_dataloaders_every_n_epochs": 1})


@pipeline()
def reloaded_growing():
    return _reloaded(lambda module: range(24 + 8 * module.current_epoch))


@pipeline()
def reloaded_random_subset():
    return _reloaded(lambda module: np.random.permutation(COUNT)[:32].tolist())


@pipeline()
def reloaded_generator_of_the_script():
    generator = np.random.default_rng(3)
    return _reloaded(lambda module: generator.permutation(COUNT)[:32].tolist())


@pipeline()
def reloaded_every_second_epoch():
    data = _reloaded(lambda module: np.random.permutation(COUNT)[:32].tolist())
    data.options = {"reload_dataloaders_every_n_epochs": 2}
    return data


class Tensors:
    """Batches of tensors, without a `DataLoader`."""

    def __len__(self):
        return BATCHES

    def __iter__(self):
        return iter([X[rows] for rows in torch.arange(COUNT).reshape(BATCHES, BATCH)])


@pipeline()
def tensors_without_a_loader():
    return Tensors()
