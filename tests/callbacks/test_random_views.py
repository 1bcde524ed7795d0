"""Detection of random augmentation."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_green.callbacks._random_views import check_dataset, check_hits


class Views(Dataset):
    """Samples that ``make`` creates."""

    def __init__(self, make, samples=4):
        self.make, self.samples = make, samples

    def __len__(self):
        return self.samples

    def __getitem__(self, index):
        return {"image": (self.make(), index), "name": f"image {index}"}


class Stream(IterableDataset):
    def __len__(self):
        return 4

    def __iter__(self):
        return iter(torch.rand(4))


def check(data):
    check_dataset(SimpleNamespace(train_dataloader=data if data is None else DataLoader(data, batch_size=None)))


RANDOM = [lambda: torch.rand(2), lambda: np.random.rand(2), lambda: torch.zeros(random.randint(1, 10**6))]


@pytest.mark.parametrize("make", RANDOM, ids=["torch", "numpy", "shape"])
def test_random_views_raise(make):
    with pytest.raises(ValueError, match="`cache` should be None, because the views are random and not seeded"):
        check(Views(make))


@pytest.mark.parametrize("make", [lambda: torch.ones(2), lambda: np.ones(2), lambda: torch.arange(2), lambda: "text"])
def test_equal_views_are_accepted(make):
    check(Views(make))


def test_random_number_of_tensors_raises():
    with pytest.raises(ValueError, match="`cache` should be None"):
        check(Views(lambda: [torch.ones(2)] * random.randint(1, 10**4)))


def test_array_without_numbers_is_not_compared():
    check(Views(lambda: np.array(["a", "b"])))
    check(Views(lambda: np.array([object()])))


def test_missing_values_are_equal():
    check(Views(lambda: torch.tensor([1.0, float("nan")])))
    with pytest.raises(ValueError, match="random"):
        check(Views(lambda: torch.where(torch.rand(64) > 0.5, 1.0, float("nan"))))


@pytest.mark.parametrize("make", RANDOM)
def test_states_of_the_random_generators_do_not_change(make):
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with pytest.raises(ValueError, match="random"):
        check(Views(make))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]


@pytest.mark.parametrize(
    "data", [None, Stream(), Views(lambda: torch.rand(2), samples=0)], ids=["none", "stream", "empty"]
)
def test_data_that_cannot_be_read_by_index_is_not_checked(data):
    check(data)


def trainer(epoch, batch, batches=100):
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_idx=batch))
    return SimpleNamespace(num_training_batches=batches, current_epoch=epoch, fit_loop=loop)


@pytest.mark.parametrize(("epoch", "batch", "batches"), [(1, 9, 100), (1, 10, 100), (2, 0, 1), (1, 2, 3)])
def test_cache_without_a_hit_in_the_second_epoch_raises(epoch, batch, batches):
    with pytest.raises(ValueError, match="no input occurs twice"):
        check_hits(trainer(epoch, batch, batches), hits=0)
    check_hits(trainer(epoch, batch, batches), hits=1)


@pytest.mark.parametrize(("epoch", "batch"), [(0, 99), (1, 0), (1, 8)])
def test_cache_may_have_no_hit_in_the_first_epoch_and_the_first_batches(epoch, batch):
    check_hits(trainer(epoch, batch), hits=0)
