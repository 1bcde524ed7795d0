"""Positions in loaders without indices; ``test_every_batch.py`` resumes whole trainings with them."""

import itertools

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_green.resume.errors import InexactStateError
from lightning_green.resume.iterable_loaders import ReplayedLoader, has_length, why_not_replayed
from lightning_green.resume.random_states import capture_random_states, restore_random_states, seed_random_states
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


class Slice:
    """A few batches of an endless stream in each pass, which continues where the previous pass ended."""

    def __init__(self):
        self.stream = endless()

    def __iter__(self):
        for number, item in enumerate(self.stream):
            if number == 3:  # one item more than the batches of a pass
                return
            yield item


class SizedSlice(Slice):
    def __iter__(self):
        return itertools.islice(self.stream, 3)

    def __len__(self):
        return 3


def endless():
    buffer = list(range(8))
    for number in itertools.count(8):
        place = int(torch.randint(8, ()))
        yield buffer[place] + float(torch.rand(()))
        buffer[place] = number


@pytest.mark.parametrize("kind", [Slice, SizedSlice])
@pytest.mark.parametrize("taken", [0, 1, 3, 5, 6, 7])
def test_stream_that_continues_over_the_passes_is_replayed(kind, taken):
    def read(loader, stop):
        items = []
        while len(items) < stop:
            for item in loader:
                items.append(item)
                if len(items) == stop:
                    return items
            torch.rand(2)  # of the model, between two passes
        return items

    seed_random_states(1)
    expected = read(ReplayedLoader(kind(), deferred=False), 12)
    seed_random_states(1)
    stopped = ReplayedLoader(kind(), deferred=False)
    read(stopped, taken)
    position, random = stopped.position(ahead=0), capture_random_states(with_cuda=False)
    resumed = ReplayedLoader(kind(), deferred=True)
    seed_random_states(99)
    resumed.resume(position, at_start=False)
    restore_random_states(random)
    assert read(resumed, 12 - taken) == expected[taken:]


def test_stream_of_a_finished_fit_is_where_the_fit_ended():
    """The next fit may read the same stream."""
    seed_random_states(1)
    stopped = ReplayedLoader(Slice(), deferred=False)
    list(stopped)
    list(stopped)
    resumed = ReplayedLoader(Slice(), deferred=True)
    resumed.resume(stopped.position(ahead=0), at_start=True)
    resumed.replay()
    items = []
    for loader in (stopped, resumed):
        seed_random_states(2)
        items.append(list(loader))
    assert items[0] == items[1]


def test_new_pass_does_not_skip_batches():
    loader = ReplayedLoader([1, 2, 3], deferred=False)
    iterator = iter(loader)
    next(iterator)
    resumed = ReplayedLoader([1, 2, 3], deferred=True)
    resumed.resume(loader.position(ahead=0), at_start=True)
    assert list(resumed) == [1, 2, 3]


def resumed(loader, position):
    loader.resume(position, at_start=False)
    return iter(loader)


@pytest.mark.parametrize("sized", [True, False])
def test_fewer_batches_than_were_taken_are_an_error_with_both_numbers(sized):
    loader = ReplayedLoader([1, 2, 3, 4], deferred=False)
    iterator = iter(loader)
    for _ in range(3):
        next(iterator)
    shorter = ReplayedLoader([1, 2] if sized else Unsized([1, 2]), deferred=True)
    with pytest.raises(InexactStateError, match=r"yields 2 batches in this epoch now, .* had already taken 3"):
        resumed(shorter, loader.position(ahead=0))


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
