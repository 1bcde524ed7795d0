"""Streaming datasets of mosaicml-streaming."""

from __future__ import annotations

from torch.utils.data import DataLoader

from data_pipelines.samples import BATCH, COUNT, X, Y, pipeline, written


def _write(folder):
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"x": "ndarray:float32", "y": "int"}, size_limit=600) as writer:
        for index in range(COUNT):
            writer.write({"x": X[index].numpy(), "y": int(Y[index])})


def _mosaicml(**options):
    from streaming import StreamingDataset

    return StreamingDataset(local=str(written("mosaicml", _write)), batch_size=BATCH, **options)


def _mosaicml_loader(shuffle=False, workers=0):
    from streaming import StreamingDataLoader

    return StreamingDataLoader(_mosaicml(shuffle=shuffle), batch_size=BATCH, num_workers=workers)


@pipeline("streaming")
def mosaicml_loader():
    return _mosaicml_loader()


@pipeline("streaming")
def mosaicml_loader_shuffled():
    return _mosaicml_loader(shuffle=True)


@pipeline("streaming")
def mosaicml_loader_shuffled_workers():
    return _mosaicml_loader(shuffle=True, workers=2)


@pipeline("streaming")
def mosaicml_dataset_in_a_plain_loader():
    return DataLoader(_mosaicml(shuffle=True), BATCH)
