"""Datasets of Hugging Face, map-style and as streams."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from data_pipelines.libraries.torchdata import stateful
from data_pipelines.samples import BATCH, X, Y, loader, pipeline, with_epochs


def _hugging_face():
    import datasets

    datasets.disable_progress_bars()
    return datasets.Dataset.from_dict({"x": X.tolist(), "y": Y.tolist()})


@pipeline("datasets")
def datasets_map():
    return loader(_hugging_face().with_format("torch"))


@pipeline("datasets")
def datasets_map_with_a_random_transform():
    generator = np.random.default_rng(3)

    def transform(rows):
        return {"x": [torch.tensor(x) + generator.random() for x in rows["x"]], "y": rows["y"]}

    return loader(_hugging_face().with_transform(transform))


def _hugging_face_stream(shuffled=False):
    stream = _hugging_face().to_iterable_dataset(num_shards=4)
    return (stream.shuffle(seed=42, buffer_size=10) if shuffled else stream).with_format("torch")


@pipeline("datasets")
def datasets_stream():
    return DataLoader(_hugging_face_stream(), BATCH)


@pipeline("datasets")
def datasets_stream_workers():
    return DataLoader(_hugging_face_stream(), BATCH, num_workers=2)


@pipeline("datasets")
def datasets_stream_shuffled():
    return DataLoader(_hugging_face_stream(True), BATCH)


@pipeline("datasets")
def datasets_stream_shuffled_with_set_epoch():
    stream = _hugging_face_stream(True)
    return with_epochs(stream, DataLoader(stream, BATCH))


@pipeline("datasets")
def datasets_stream_shuffled_with_set_epoch_workers():
    stream = _hugging_face_stream(True)
    data = DataLoader(stream, BATCH, num_workers=2)
    return with_epochs(stream, data)


@pipeline("datasets", "torchdata")
def datasets_stream_with_a_state():
    return stateful(_hugging_face_stream())


@pipeline("datasets", "torchdata")
def datasets_stream_with_a_state_workers():
    return stateful(_hugging_face_stream(), num_workers=2)


@pipeline("datasets", "torchdata")
def datasets_stream_with_a_state_and_set_epoch():
    stream = _hugging_face_stream()
    return with_epochs(stream, stateful(stream))


@pipeline("datasets", "torchdata")
def datasets_stream_with_a_state_and_set_epoch_workers():
    stream = _hugging_face_stream()
    return with_epochs(stream, stateful(stream, num_workers=2))


@pipeline("datasets", "torchdata")
def datasets_stream_with_a_state_shuffled():
    return stateful(_hugging_face_stream(True))


class Around(IterableDataset):
    """A stream around one of Hugging Face, with its state."""

    def __init__(self, inner):
        self.inner = inner

    def __iter__(self):
        return iter(self.inner)

    def state_dict(self):
        return self.inner.state_dict()

    def load_state_dict(self, state):
        self.inner.load_state_dict(state)


@pipeline("datasets", "torchdata")
def datasets_stream_in_a_stream_with_a_state():
    return stateful(Around(_hugging_face_stream()))


@pipeline("datasets", "torchdata")
def datasets_stream_in_a_stream_with_a_state_shuffled():
    return stateful(Around(_hugging_face_stream(True)))
