"""Positions in loaders without indices; ``test_every_batch.py`` resumes whole trainings with them."""

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_green.resume.iterable_loaders import ReplayedLoader, has_length, why_not_replayed
from lightning_green.resume.random_states import seed_random_states
from tests.helpers.resume_data import Batches, Samples, StatefulLoader, Stream, Unsized

LOADERS = {
    "iterable": lambda: Batches(Samples(12), 2),
    "stream": lambda: DataLoader(Stream(12), 2),
}


def indices(iterator, count):
    return [next(iterator)[0].tolist() for _ in range(count)]


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("taken", [0, 2, 5])
def test_resumed_loader_continues_with_the_next_batch(kind, taken):
    seed_random_states(1)
    expected = indices(iter(ReplayedLoader(LOADERS[kind](), deferred=False)), 6)

    seed_random_states(1)
    stopped = ReplayedLoader(LOADERS[kind](), deferred=False)
    indices(iter(stopped), taken)
    position = stopped.position(ahead=0)

    seed_random_states(99)  # a resume begins with other random states
    resumed = ReplayedLoader(LOADERS[kind](), deferred=True)
    resumed.resume(position, at_start=False)
    assert indices(iter(resumed), 6 - taken) == expected[taken:]
    assert resumed.taken == 6


def test_draws_of_the_model_do_not_change_a_replayed_pass():
    seed_random_states(1)
    expected = indices(iter(ReplayedLoader(LOADERS["stream"](), deferred=False)), 6)
    seed_random_states(1)
    iterator, found = iter(ReplayedLoader(LOADERS["stream"](), deferred=False)), []
    for _ in range(6):
        found += indices(iterator, 1)
        torch.rand(3)
    assert found == expected


def test_new_pass_does_not_skip_batches():
    loader = ReplayedLoader([1, 2, 3], deferred=False)
    iterator = iter(loader)
    next(iterator)
    resumed = ReplayedLoader([1, 2, 3], deferred=True)
    resumed.resume(loader.position(ahead=0), at_start=True)
    assert list(resumed) == [1, 2, 3]


@pytest.mark.parametrize("sized", [True, False])
def test_reading_before_the_position_is_restored(sized):
    loader = ReplayedLoader([1, 2] if sized else Unsized([1, 2]), deferred=True)
    assert has_length(loader) is sized
    with pytest.raises(RuntimeError if sized else StopIteration):
        next(iter(loader))


@pytest.mark.parametrize(
    ("loader", "reason"),
    [
        (Batches(Samples(4), 2), None),
        (StatefulLoader(Samples(4), 2), None),
        (DataLoader(Stream(4)), None),
        (iter([1]), "list_iterator is an iterator that cannot start again"),
        (DataLoader(Stream(4), num_workers=1, persistent_workers=True), "an IterableDataset in persistent workers"),
    ],
)
def test_reason_why_a_loader_cannot_be_replayed(loader, reason):
    found = why_not_replayed(loader)
    assert found is None if reason is None else found.startswith(reason)
