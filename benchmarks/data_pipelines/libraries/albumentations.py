"""Transforms of albumentations."""

from __future__ import annotations

import numpy as np
import torch

from data_pipelines.samples import FEATURES, Samples, X, loader, pipeline


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
