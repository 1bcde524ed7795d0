"""Streaming datasets of litdata."""

from __future__ import annotations

from torch.utils.data import DataLoader

from data_pipelines.samples import BATCH, COUNT, X, Y, pipeline, written


def _write(folder):
    from litdata.streaming.writer import BinaryWriter

    folder.mkdir()
    writer = BinaryWriter(str(folder), chunk_size=12)
    for index in range(COUNT):
        writer[index] = {"x": X[index], "y": int(Y[index])}
    writer.done()
    writer.merge()


def _litdata(**options):
    from litdata import StreamingDataset

    return StreamingDataset(str(written("litdata", _write)), **options)


def _litdata_loader(shuffle=False, workers=0):
    from litdata import StreamingDataLoader

    return StreamingDataLoader(_litdata(shuffle=shuffle), batch_size=BATCH, num_workers=workers)


@pipeline("litdata")
def litdata_loader():
    return _litdata_loader()


@pipeline("litdata")
def litdata_loader_shuffled():
    return _litdata_loader(shuffle=True)


@pipeline("litdata")
def litdata_loader_shuffled_workers():
    return _litdata_loader(shuffle=True, workers=2)


@pipeline("litdata")
def litdata_dataset_in_a_plain_loader():
    return DataLoader(_litdata(shuffle=True), BATCH)
