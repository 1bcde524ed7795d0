"""Loaders, datasets and transforms of packages; each pipeline names the packages that it needs."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from data_pipelines.map_style import FromGlobals, Stored, loader
from data_pipelines.samples import BATCH, COUNT, FEATURES, Data, Samples, X, Y, pipeline

FOLDER = Path(tempfile.gettempdir()) / "lightning_green_pipelines"


# -- torchdata ---------------------------------------------------------------------------------------------------------


def _stateful(dataset, **options):
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(dataset, **{"batch_size": BATCH, **options})


@pipeline("torchdata")
def torchdata_map():
    return _stateful(FromGlobals(), shuffle=True)


@pipeline("torchdata")
def torchdata_map_workers():
    return _stateful(Samples(), shuffle=True, num_workers=2)


@pipeline("torchdata")
def torchdata_map_workers_augmented():
    return _stateful(FromGlobals(), shuffle=True, num_workers=2)


@pipeline("torchdata")
def torchdata_map_persistent_augmented():
    return _stateful(FromGlobals(), shuffle=True, num_workers=2, persistent_workers=True)


@pipeline("torchdata")
def torchdata_stored_generator():
    return _stateful(Stored(np.random.default_rng(0)), shuffle=True)


class Stream(IterableDataset):
    """A stream whose order is drawn from the global generator."""

    def __iter__(self):
        for index in np.random.permutation(COUNT):
            yield X[index], Y[index]


@pipeline("torchdata")
def torchdata_stream():
    return _stateful(Stream())


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
    return _stateful(Resumable())


@pipeline("torchdata")
def torchdata_stream_with_a_state_workers():
    return _stateful(Resumable(), num_workers=1)


@pipeline("torchdata")
def torchdata_nodes():
    from torch.utils.data import RandomSampler, default_collate
    from torchdata.nodes import Batcher, Loader, Mapper, MapStyleWrapper, SamplerWrapper

    sampler = SamplerWrapper(RandomSampler(Samples(), generator=torch.Generator().manual_seed(1)))
    del sampler
    nodes = MapStyleWrapper(Samples(), RandomSampler(Samples(), generator=torch.Generator().manual_seed(1)))
    return Loader(Mapper(Batcher(nodes, BATCH), default_collate))


# -- Hugging Face ------------------------------------------------------------------------------------------------------


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
    return Data(DataLoader(stream, BATCH), epoch_start=lambda module: stream.set_epoch(module.current_epoch + 1))


@pipeline("datasets")
def datasets_stream_shuffled_with_set_epoch_workers():
    stream = _hugging_face_stream(True)
    data = DataLoader(stream, BATCH, num_workers=2)
    return Data(data, epoch_start=lambda module: stream.set_epoch(module.current_epoch + 1))


@pipeline("datasets", "torchdata")
def datasets_stream_with_a_state():
    return _stateful(_hugging_face_stream())


@pipeline("datasets", "torchdata")
def datasets_stream_with_a_state_workers():
    return _stateful(_hugging_face_stream(), num_workers=2)


@pipeline("datasets", "torchdata")
def datasets_stream_with_a_state_shuffled():
    return _stateful(_hugging_face_stream(True))


# -- litdata -----------------------------------------------------------------------------------------------------------


def _litdata(**options):
    import litdata
    from litdata.streaming.writer import BinaryWriter

    folder = FOLDER / "litdata"
    if not (folder / "index.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        writer = BinaryWriter(str(folder), chunk_size=12)
        for index in range(COUNT):
            writer[index] = {"x": X[index], "y": int(Y[index])}
        writer.done()
        writer.merge()
    del litdata
    from litdata import StreamingDataset

    return StreamingDataset(str(folder), **options)


@pipeline("litdata")
def litdata_loader():
    from litdata import StreamingDataLoader

    return StreamingDataLoader(_litdata(), batch_size=BATCH, num_workers=0)


@pipeline("litdata")
def litdata_loader_shuffled():
    from litdata import StreamingDataLoader

    return StreamingDataLoader(_litdata(shuffle=True), batch_size=BATCH, num_workers=0)


@pipeline("litdata")
def litdata_loader_shuffled_workers():
    from litdata import StreamingDataLoader

    return StreamingDataLoader(_litdata(shuffle=True), batch_size=BATCH, num_workers=2)


@pipeline("litdata")
def litdata_dataset_in_a_plain_loader():
    return DataLoader(_litdata(shuffle=True), BATCH)


# -- MosaicML ----------------------------------------------------------------------------------------------------------


def _mosaicml(**options):
    from streaming import MDSWriter, StreamingDataset

    folder = FOLDER / "mosaicml"
    if not (folder / "index.json").exists():
        with MDSWriter(out=str(folder), columns={"x": "ndarray:float32", "y": "int"}, size_limit=600) as writer:
            for index in range(COUNT):
                writer.write({"x": X[index].numpy(), "y": int(Y[index])})
    return StreamingDataset(local=str(folder), batch_size=BATCH, **options)


@pipeline("streaming")
def mosaicml_loader():
    from streaming import StreamingDataLoader

    return StreamingDataLoader(_mosaicml(), batch_size=BATCH, num_workers=0)


@pipeline("streaming")
def mosaicml_loader_shuffled():
    from streaming import StreamingDataLoader

    return StreamingDataLoader(_mosaicml(shuffle=True), batch_size=BATCH, num_workers=0)


@pipeline("streaming")
def mosaicml_loader_shuffled_workers():
    from streaming import StreamingDataLoader

    return StreamingDataLoader(_mosaicml(shuffle=True), batch_size=BATCH, num_workers=2)


@pipeline("streaming")
def mosaicml_dataset_in_a_plain_loader():
    return DataLoader(_mosaicml(shuffle=True), BATCH)


# -- webdataset --------------------------------------------------------------------------------------------------------


def _shards():
    folder = FOLDER / "webdataset"
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(4):
        path = folder / f"{shard}.tar"
        if path.exists():
            continue
        with tarfile.open(path, "w") as file:
            for index in range(shard * 12, shard * 12 + 12):
                content = json.dumps(X[index].tolist()).encode()
                info = tarfile.TarInfo(f"{index:03d}.json")
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return [str(folder / f"{shard}.tar") for shard in range(4)]


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


# -- albumentations ----------------------------------------------------------------------------------------------------


class Images(Samples):
    """Small images with random augmentation."""

    def __init__(self, seed):
        import albumentations

        steps = [albumentations.HorizontalFlip(p=0.5), albumentations.RandomBrightnessContrast(p=0.9)]
        self.transform = albumentations.Compose(steps, seed=seed)

    def __getitem__(self, index):
        image = (X[index].sigmoid().reshape(1, FEATURES, 1).numpy() * 255).astype(np.uint8).repeat(3, 2)
        return torch.from_numpy(self.transform(image=image)["image"][0, :, 0].copy()).float() / 255


@pipeline("albumentations")
def albumentations_with_a_seed():
    return loader(Images(137))


@pipeline("albumentations")
def albumentations_without_a_seed():
    return loader(Images(None))


@pipeline("albumentations")
def albumentations_with_a_seed_workers():
    return loader(Images(137), num_workers=2)


@pipeline("albumentations")
def albumentations_with_a_seed_persistent():
    return loader(Images(137), num_workers=2, persistent_workers=True)


# -- MONAI -------------------------------------------------------------------------------------------------------------


def _monai(kind="Dataset", seed=3, **options):
    import monai.data
    from monai.transforms import Compose, RandGaussianNoise, RandScaleIntensity

    steps = Compose([RandGaussianNoise(prob=0.5, std=0.3), RandScaleIntensity(factors=0.3, prob=0.7)])
    if seed is not None:
        steps.set_random_state(seed=seed)
    return getattr(monai.data, kind)(data=[x[None].numpy() for x in X], transform=steps, **options)


def _monai_loader(dataset, **options):
    from monai.data import DataLoader as MonaiLoader

    return MonaiLoader(dataset, batch_size=BATCH, shuffle=True, **options)


@pipeline("monai")
def monai_dataset():
    return _monai_loader(_monai())


@pipeline("monai")
def monai_dataset_without_a_seed():
    return _monai_loader(_monai(seed=None))


@pipeline("monai")
def monai_dataset_workers():
    return _monai_loader(_monai(), num_workers=2)


@pipeline("monai")
def monai_dataset_persistent():
    return _monai_loader(_monai(), num_workers=2, persistent_workers=True)


@pipeline("monai")
def monai_cache_dataset():
    return _monai_loader(_monai("CacheDataset", num_workers=0, progress=False))


@pipeline("monai")
def monai_smart_cache_dataset():
    options = {"cache_num": 24, "replace_rate": 0.5, "num_init_workers": 1, "num_replace_workers": 1}
    dataset = _monai("SmartCacheDataset", **options, progress=False)

    def update(module):
        if module.current_epoch == 0:
            dataset.start()
        else:
            dataset.update_cache()

    return Data(_monai_loader(dataset), epoch_start=update)


@pipeline("monai")
def monai_thread_loader():
    from monai.data import ThreadDataLoader

    return ThreadDataLoader(_monai(), batch_size=BATCH, shuffle=True)
