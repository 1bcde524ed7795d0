"""`StatefulDataLoader` and `nodes` of torchdata."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import IterableDataset, RandomSampler, default_collate

from data_pipelines.generators import FromGlobals, Stored
from data_pipelines.samples import BATCH, COUNT, Samples, X, Y, pipeline


def stateful(dataset, **options):
    """Return a loader with a state."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(dataset, **{"batch_size": BATCH, **options})


@pipeline("torchdata")
def torchdata_map():
    return stateful(FromGlobals(), shuffle=True)


@pipeline("torchdata")
def torchdata_map_workers():
    return stateful(Samples(), shuffle=True, num_workers=2)


@pipeline("torchdata")
def torchdata_map_workers_augmented():
    return stateful(FromGlobals(), shuffle=True, num_workers=2)


@pipeline("torchdata")
def torchdata_map_persistent_augmented():
    return stateful(FromGlobals(), shuffle=True, num_workers=2, persistent_workers=True)


@pipeline("torchdata")
def torchdata_stored_generator():
    return stateful(Stored(np.random.default_rng(0)), shuffle=True)


class Stream(IterableDataset):
    """A stream whose order is drawn from the global generator."""

    def __iter__(self):
        for index in np.random.permutation(COUNT):
            yield X[index], Y[index]


@pipeline("torchdata")
def torchdata_stream():
    return stateful(Stream())


class Resumable(IterableDataset):
    """A stream with a state."""

    def __init__(self):
        self.at = self.passes = 0

    def __iter__(self):
        while self.at < COUNT:
            self.at += 1
            yield X[np.random.default_rng(self.passes).permutation(COUNT)[self.at - 1]]
        self.at, self.passes = 0, self.passes + 1

    def state_dict(self):
        return {"at": self.at, "passes": self.passes}

    def load_state_dict(self, state):
        self.at, self.passes = state["at"], state["passes"]


@pipeline("torchdata")
def torchdata_stream_with_a_state():
    return stateful(Resumable())


@pipeline("torchdata")
def torchdata_stream_with_a_state_workers():
    return stateful(Resumable(), num_workers=1)


@pipeline("torchdata")
def torchdata_nodes():
    from torchdata.nodes import Batcher, Loader, Mapper, MapStyleWrapper

    nodes = MapStyleWrapper(Samples(), RandomSampler(Samples(), generator=torch.Generator().manual_seed(1)))
    return Loader(Mapper(Batcher(nodes, BATCH), default_collate))
