"""Datasets, loaders and transforms of MONAI."""

from __future__ import annotations

from data_pipelines.samples import BATCH, Data, X, pipeline


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


def _thread_loader(**options):
    from monai.data import ThreadDataLoader

    return ThreadDataLoader(_monai(), batch_size=BATCH, shuffle=True, **options)


@pipeline("monai")
def monai_thread_loader():
    return _thread_loader()


@pipeline("monai")
def monai_thread_loader_repeats():
    return _thread_loader(repeats=2)


@pipeline("monai")
def monai_thread_loader_workers():
    return _thread_loader(num_workers=2)
