"""webdataset."""

from __future__ import annotations

import io
import json
import tarfile

import torch
from torch.utils.data import DataLoader

from data_pipelines.samples import BATCH, X, pipeline, written


def _write(folder):
    folder.mkdir()
    for shard in range(4):
        with tarfile.open(folder / f"{shard}.tar", "w") as file:
            for index in range(shard * 12, shard * 12 + 12):
                content = json.dumps(X[index].tolist()).encode()
                info = tarfile.TarInfo(f"{index:03d}.json")
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))


def _shards():
    return [str(path) for path in sorted(written("webdataset", _write).iterdir())]


def _row(sample):
    return torch.tensor(json.loads(sample["json"]) if isinstance(sample["json"], bytes) else sample["json"])


def _webdataset(shuffled):
    import webdataset

    dataset = webdataset.WebDataset(_shards(), shardshuffle=4 if shuffled else False)
    return (dataset.shuffle(12) if shuffled else dataset).map(_row)


@pipeline("webdataset")
def webdataset_in_order():
    return DataLoader(_webdataset(False), BATCH)


@pipeline("webdataset")
def webdataset_shuffled():
    return DataLoader(_webdataset(True), BATCH)


@pipeline("webdataset")
def webdataset_shuffled_workers():
    return DataLoader(_webdataset(True), BATCH, num_workers=2)


@pipeline("webdataset")
def webdataset_resampled():
    import webdataset

    dataset = webdataset.WebDataset(_shards(), resampled=True, shardshuffle=False).map(_row)
    return webdataset.WebLoader(dataset, batch_size=BATCH).with_epoch(6)
