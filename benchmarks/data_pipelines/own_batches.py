"""Subclasses of `DataLoader` whose `__iter__` changes, repeats or leaves out batches, or reads ahead."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from functools import partial
from itertools import chain

import numpy as np
from torch.utils.data import DataLoader

from data_pipelines.generators import Stored
from data_pipelines.samples import Samples, loader, register


class Scaled(DataLoader):
    """Changes each batch."""

    def __iter__(self):
        for samples, *others in super().__iter__():
            yield [2 * samples, *others]


class Repeated(DataLoader):
    """Yields each batch twice."""

    def __len__(self):
        return 2 * super().__len__()

    def __iter__(self):
        for batch in super().__iter__():
            yield batch
            yield batch


class WithoutFirst(DataLoader):
    """Leaves the first batch of each epoch out."""

    def __len__(self):
        return super().__len__() - 1

    def __iter__(self):
        batches = super().__iter__()
        next(batches)
        yield from batches


class OneAhead(DataLoader):
    """Reads a batch while the one before is in use."""

    def __iter__(self):
        batches = super().__iter__()
        ready = next(batches)
        for following in batches:
            yield ready
            ready = following
        yield ready


class InThread(DataLoader):
    """Reads in a thread, which ends with the iterator."""

    def __iter__(self):
        ready, ended, end = queue.Queue(2), threading.Event(), object()
        batches = super().__iter__()

        def read():
            for batch in chain(batches, [end]):
                while not ended.is_set():
                    with suppress(queue.Full):
                        ready.put(batch, timeout=0.01)
                        break

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield from iter(ready.get, end)
        finally:
            ended.set()
            thread.join()


KINDS = {
    "scaled_batches": Scaled,
    "repeated_batches": Repeated,
    "first_batch_left_out": WithoutFirst,
    "batch_read_ahead": OneAhead,
    "batches_read_in_a_thread": InThread,
}


for name, kind in KINDS.items():
    stored = partial(Stored, np.random.default_rng(0))  # samples with noise of a generator that the dataset keeps
    for suffix, data, options in (("", stored, {}), ("_workers", Samples, {"num_workers": 2})):
        make = partial(lambda kind, data, options: loader(data(), kind=kind, **options), kind, data, options)
        register(f"{name}{suffix}", make)
