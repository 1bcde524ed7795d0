"""Positions in map-style loaders; ``test_every_batch.py`` resumes whole trainings with them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice, pairwise
from multiprocessing.context import SpawnContext

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Sampler, SequentialSampler, Subset

from lightning_green.resume.loaders import CountingLoader, count_batches, wrap_loaders
from lightning_green.resume.random_states import seed_random_states
from lightning_green.resume.worker_signals import protect_workers
from tests.helpers.resume_data import Drawing, StatefulLoader, Unsized


class Indices(Dataset):
    """Samples that are their index; records the loaded ones."""

    def __init__(self, count=12):
        self.count, self.loaded = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.loaded.append(index)
        return index


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(4))


def make(kind, data=None):
    data = Indices() if data is None else data
    sampler = {"sampler": Drawing(12)} if kind == "drawing sampler" else {"shuffle": kind != "sequential"}
    generator = torch.Generator().manual_seed(5) if kind == "generator" else None
    return DataLoader(data, 2, generator=generator, **sampler)


def batches(loader, count=None):
    iterator = iter(loader)
    return [next(iterator).tolist() for _ in range(len(loader) if count is None else count)]


@pytest.mark.parametrize("kind", ["sequential", "shuffled", "generator"])
def test_counting_does_not_change_the_order(kind):
    seed_random_states(1)
    expected = batches(make(kind))
    seed_random_states(1)
    assert batches(count_batches(make(kind), 0, deferred=False)) == expected


class Scaled(Sampler):
    """Indices that the training scales."""

    scale = 1

    def __len__(self):
        return 12

    def __iter__(self):
        return ((index * self.scale) % 12 for index in range(12))


def test_changes_of_the_training_are_repeated_after_each_of_two_pauses():
    """The second process changes the sampler again, and the third one repeats both changes."""

    def run(position, begin, end):
        sampler = Scaled()
        counting = count_batches(DataLoader(Indices(), 1, sampler=sampler), 0, deferred=position is not None)
        if position is not None:
            counting.resume(position, at_start=False)
        iterator, found = iter(counting), []
        for number in range(begin, end):
            found.append(int(next(iterator)))
            if number in (2, 6):
                sampler.scale += 4
        return found, counting.position(ahead=0)

    expected, _ = run(None, 0, 12)
    found, position = [], None
    for begin, end in ((0, 4), (4, 8), (8, 12)):
        part, position = run(position, begin, end)
        found += part
    assert found == expected


@pytest.mark.parametrize("kind", ["sequential", "shuffled", "generator", "drawing sampler"])
@pytest.mark.parametrize("taken", [1, 2, 5])
def test_resumed_loader_continues_with_the_next_batch_and_loads_no_skipped_sample(kind, taken):
    seed_random_states(1)
    expected = batches(count_batches(make(kind), 0, deferred=False))

    seed_random_states(1)
    stopped = count_batches(make(kind), 0, deferred=False)
    iterator = iter(stopped)
    for _ in range(taken):
        next(iterator)
    position = stopped.position(ahead=0)
    assert position["taken"] == taken

    seed_random_states(99)  # a resume begins with other random states
    data = Indices()
    resumed = count_batches(make(kind, data), 0, deferred=True)
    resumed.resume(position, at_start=False)
    assert batches(resumed, 6 - taken) == expected[taken:]
    assert len(data.loaded) == 12  # the list is restored, and no sample is loaded twice


class StartsAtFirstBatch(DataLoader):
    """An ``__iter__`` that is a generator creates the iterator of PyTorch with its first batch."""

    def __iter__(self):
        for batch in super().__iter__():
            yield batch + 100


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_loader_whose_iterator_starts_at_its_first_batch_continues_and_draws_nothing(workers):
    seed_random_states(1)
    expected = batches(StartsAtFirstBatch(range(12), 2, shuffle=True, num_workers=workers))

    seed_random_states(1)
    stopped = count_batches(StartsAtFirstBatch(range(12), 2, shuffle=True, num_workers=workers), 0, deferred=False)
    iterator = iter(stopped)
    for _ in range(4):
        next(iterator)
    position = stopped.position(ahead=0)
    assert stopped.why_epochs_only is None
    del iterator

    seed_random_states(99)
    resumed = count_batches(StartsAtFirstBatch(range(12), 2, shuffle=True, num_workers=workers), 0, deferred=True)
    resumed.resume(position, at_start=False)
    iterator = iter(resumed)
    state = torch.get_rng_state()  # what a resume restores after it has created the iterators
    assert [next(iterator).tolist() for _ in range(2)] == expected[4:]
    assert torch.get_rng_state().equal(state)
    assert resumed.why_epochs_only is None


class Repeated(DataLoader):
    def __iter__(self):
        for batch in super().__iter__():
            yield from (batch, batch)


class WithoutFirst(DataLoader):
    def __iter__(self):
        return islice(super().__iter__(), 1, None)


class Prefetching(DataLoader):
    """Reads a batch while the one before is in use."""

    def __iter__(self):
        pairs = pairwise(chain(super().__iter__(), [None]))
        return (batch for batch, _ in pairs)


class InThread(DataLoader):
    def __iter__(self):
        with ThreadPoolExecutor(1) as pool:
            read, batches, end = pool.submit, super().__iter__(), object()
            while (batch := read(next, batches, end).result()) is not end:
                yield batch


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Repeated, "does not yield one batch for each that its sampler chooses"),
        (WithoutFirst, "does not yield one batch for each that its sampler chooses"),
        (Prefetching, "does not yield one batch for each that its sampler chooses"),
        (InThread, "reads in a thread"),
    ],
)
def test_loader_that_yields_other_batches_than_it_reads_is_saved_between_epochs(kind, reason, workers):
    counting = count_batches(kind(range(12), 2, num_workers=workers), 0, deferred=False)
    iterator = iter(counting)
    for _ in range(3):
        next(iterator)
    assert reason in counting.why_epochs_only
    del iterator


class Threads(SpawnContext):
    Process = threading.Thread


def test_workers_that_are_threads_keep_the_seed_and_the_signal_handlers_of_the_process():
    loader = DataLoader(range(12), 2, num_workers=1, multiprocessing_context=Threads())
    counting = count_batches(loader, 0, deferred=False)
    assert counting.worker_init_fn is None
    assert protect_workers(loader) is None
    assert list(counting.batch_sampler) == list(loader.batch_sampler)


class Plain:
    """A dataset that does not inherit from `Dataset`, such as one of Hugging Face, and keeps a generator."""

    def __init__(self):
        self.generator = np.random.default_rng(3)

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return index + self.generator.random()


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: Subset(data, range(12))])
@pytest.mark.parametrize("sampler", [RandomSampler, SequentialSampler, Drawing])
def test_dataset_of_any_class_is_no_part_of_its_sampler(sampler, wrap):
    def make():
        data = Plain()
        order = sampler(12 if sampler is Drawing else data)
        order.data_source = data
        return DataLoader(wrap(data), 2, sampler=order)

    seed_random_states(1)
    expected = batches(count_batches(make(), 0, deferred=False))
    seed_random_states(1)
    stopped = count_batches(make(), 0, deferred=False)
    assert batches(stopped, 3) == expected[:3]
    assert stopped.why_epochs_only is None
    resumed = count_batches(make(), 0, deferred=True)
    resumed.resume(stopped.position(ahead=0), at_start=False)
    assert batches(resumed, 3) == expected[3:]


def test_batches_that_were_read_ahead_are_read_again():
    loader = count_batches(make("sequential"), 0, deferred=False)
    iterator = iter(loader)
    next(iterator), next(iterator)
    position = loader.position(ahead=1)
    resumed = count_batches(make("sequential"), 0, deferred=True)
    resumed.resume(position, at_start=False)
    assert batches(resumed, 1) == [[2, 3]]


def test_new_pass_starts_from_the_first_batch():
    loader = count_batches(make("sequential"), 0, deferred=False)
    next(iter(loader))
    resumed = count_batches(make("sequential"), 0, deferred=True)
    resumed.resume(loader.position(ahead=0), at_start=True)
    assert batches(resumed, 1) == [[0, 1]]


def test_reading_before_the_position_is_restored_is_an_error():
    loader = count_batches(make("sequential"), 0, deferred=True)
    with pytest.raises(RuntimeError, match="was read before its position was restored"):
        next(iter(loader))


@pytest.mark.parametrize(
    "loader",
    [DataLoader(Stream()), StatefulLoader(Indices(), 2), [1, 2], DataLoader(Indices(), batch_sampler=Unsized([[0]]))],
    ids=["stream", "stateful", "list", "without a length"],
)
def test_other_loaders_are_returned_unchanged(loader):
    assert count_batches(loader, 0, deferred=False) is loader


def test_copy_has_the_class_and_attributes_of_the_users_loader():
    class Mine(DataLoader):
        def __init__(self, data):
            super().__init__(data, batch_size=2)
            self.extra = 7

    loader = Mine(Indices())
    counting = count_batches(loader, 0, deferred=False)
    assert isinstance(counting, Mine)
    assert isinstance(counting, CountingLoader)
    assert (counting.extra, counting.dataset, len(counting)) == (7, loader.dataset, len(loader))
    assert count_batches(counting, 0, deferred=False) is counting
    assert not isinstance(loader, CountingLoader)


def test_strategy_passes_its_loaders_through_the_wrapper_until_undone():
    class Strategy:
        def process_dataloader(self, loader):
            return [*loader, "processed"]

    strategy = Strategy()
    undo = wrap_loaders(strategy, lambda loader: (*loader, "wrapped"))
    assert strategy.process_dataloader(["a"]) == ("a", "processed", "wrapped")
    undo()
    assert strategy.process_dataloader(["a"]) == ["a", "processed"]
