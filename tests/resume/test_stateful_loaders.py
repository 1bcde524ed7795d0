"""Loaders with a state of their own; ``test_every_batch.py`` resumes whole trainings with one of them."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_green.resume.iterable_loaders import ReplayedLoader
from lightning_green.resume.random_states import seed_random_states
from lightning_green.resume.stateful_loaders import StatefulLoader
from tests.helpers.interrupted_fits import assert_continues_exactly, train_part
from tests.helpers.resume_data import Samples, Unsized
from tests.helpers.resume_data import StatefulLoader as Cursor
from tests.helpers.resume_training import digest

SAMPLES = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


class Plain(Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, index):
        return SAMPLES[index]


class Augmented(Plain):
    def __getitem__(self, index):
        return SAMPLES[index] + 0.1 * torch.randn(4)


class Stored(Plain):
    """Samples with noise from a generator that the dataset keeps."""

    def __init__(self):
        self.generator = np.random.default_rng(3)

    def __getitem__(self, index):
        return SAMPLES[index] + float(self.generator.random())


class StoredStream(IterableDataset):
    def __init__(self):
        self.generator, self.passes = np.random.default_rng(3), 0

    def __iter__(self):
        self.passes += 1
        for index in self.generator.permutation(16):
            yield SAMPLES[index] * self.passes


class Shuffled(IterableDataset):
    """A stream whose order is drawn from the global generator when its first sample is read."""

    def __iter__(self):
        for index in np.random.permutation(16):
            yield SAMPLES[index]


class SkipsWithTheFirstBatch(DataLoader):
    """Restores its position inside its iterator, as a generator does, by reading the skipped batches again."""

    count = skip = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.skip = state["count"] % len(self)

    def __iter__(self):
        skip, self.skip, self.count = self.skip, 0, 0
        for batch in super().__iter__():
            self.count += 1
            if self.count > skip:
                yield batch


class _Pass:
    """An iterator that has a position in its pass."""

    def __init__(self, loader, state):
        self.order = torch.randperm(16).tolist() if state is None else state["order"]
        self.inner, self.at = iter(loader.read()), 0
        for _ in range(0 if state is None else state["at"]):
            next(self)

    def __iter__(self):
        return self

    def __next__(self):
        batch = next(self.inner)
        self.at += 1
        return batch


class KeepsItsPass(DataLoader):
    """Continues the pass of its state with the next ``iter``, as ``StatefulDataLoader`` of torchdata does."""

    next_iter_state = current = None

    def read(self):
        return super().__iter__()

    def __iter__(self):
        state, self.next_iter_state = self.next_iter_state, None
        self.current = _Pass(self, state)
        return self.current

    def state_dict(self):
        return {"at": self.current.at, "order": self.current.order}

    def load_state_dict(self, state):
        self.next_iter_state = state


def torchdata(*arguments, **options):
    module = pytest.importorskip("torchdata.stateful_dataloader")
    return module.StatefulDataLoader(*arguments, **options)


def hugging_face(*steps):
    """Return a stream of Hugging Face, in a loader with a state."""
    datasets = pytest.importorskip("datasets")
    stream = datasets.Dataset.from_dict({"one": SAMPLES.tolist()}).to_iterable_dataset(num_shards=2)
    for step in steps:
        stream = step(stream)
    return torchdata(stream.with_format("torch"), batch_size=4)


LOADERS = {
    "cursor": lambda: Cursor(Samples(12), 2),
    "skips with the first batch": lambda: SkipsWithTheFirstBatch(Plain(), 4),
    "keeps its pass": lambda: KeepsItsPass(Shuffled(), 4),
    "torchdata": lambda: torchdata(Augmented(), 4, shuffle=True),
    "torchdata, stream": lambda: torchdata(Shuffled(), 4),
    "torchdata, own generator": lambda: torchdata(Stored(), 4, shuffle=True),
    "torchdata, stream, own generator": lambda: torchdata(StoredStream(), 4),
    "Hugging Face": lambda: hugging_face(),
    "torchdata, workers": lambda: torchdata(Plain(), 4, shuffle=True, num_workers=1),
}


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.3), nn.Linear(4, 1))

    def training_step(self, batch, batch_idx):
        parts = batch.values() if isinstance(batch, dict) else [batch]
        x = torch.cat([part[1] if isinstance(part, list) else part for part in parts if part is not None])
        return self.layer(x).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


def train(folder, loader, stop=None, **options):
    pl.seed_everything(2, verbose=False)
    module = Net()
    part = train_part(folder, module, loader(), stop=stop, **{"max_epochs": 3, **options})
    return part, digest(module.state_dict())


@pytest.mark.sampled
@pytest.mark.parametrize("stop", [2, 4, 6])
@pytest.mark.parametrize(
    "name", [name if "workers" not in name else pytest.param(name, marks=pytest.mark.slow) for name in LOADERS]
)
def test_stopped_fit_ends_like_an_uninterrupted_one(name, stop, tmp_path):
    assert_continues_exactly(lambda folder, at: train(folder, LOADERS[name], at), tmp_path, stop)


@pytest.mark.parametrize("stop", [3, 4, 9])
def test_part_of_an_epoch_of_a_loader_that_keeps_its_pass(stop, tmp_path):
    def part(folder, at):
        return train(folder, lambda: KeepsItsPass(Shuffled(), 4), at, limit_train_batches=3, max_epochs=4)

    assert_continues_exactly(part, tmp_path, stop)


class Around(IterableDataset):
    """A stream around another one, with its state."""

    def __init__(self, inner):
        self.inner = inner

    def __iter__(self):
        return iter(self.inner)

    def with_format(self, name):
        return Around(self.inner.with_format(name))

    def state_dict(self):
        return self.inner.state_dict()

    def load_state_dict(self, state):
        self.inner.load_state_dict(state)


class SetEpoch(pl.Callback):
    """Sets the epoch of a stream of Hugging Face."""

    def on_train_epoch_start(self, trainer, pl_module):
        stream = trainer.train_dataloader.dataset
        getattr(stream, "inner", stream).set_epoch(trainer.current_epoch + 1)


@pytest.mark.parametrize("steps", [(), (Around,)])
@pytest.mark.parametrize("stop", [2, 6, 8])
def test_epoch_of_a_stream_of_hugging_face_is_restored(stop, steps, tmp_path):
    def part(folder, at):
        return train(folder, lambda: hugging_face(*steps), at, callbacks=[SetEpoch()])

    assert_continues_exactly(part, tmp_path, stop)


@pytest.mark.parametrize("steps", [(), (lambda stream: stream.map(dict).take(12),), (Around,)])
def test_shuffle_buffer_of_hugging_face_is_reported(steps, tmp_path, caplog):
    caplog.set_level("INFO")
    train(tmp_path, lambda: hugging_face(lambda stream: stream.shuffle(seed=1, buffer_size=4), *steps), max_steps=2)
    assert "at the end of an epoch only: the state of a dataset of Hugging Face does not include its" in caplog.text


WORKERS = {"num_workers": 1, "multiprocessing_context": "fork"}
OBSERVED = {
    "samples that draw in workers": (Augmented, WORKERS, "end of an epoch only: the samples of SkipsWithTheFirst"),
    "the same, persistent": (Augmented, {**WORKERS, "persistent_workers": True}, "neither paused nor saved: the samp"),
    "samples that draw, read again": (
        Augmented,
        {},
        "end of an epoch only: the samples of SkipsWithTheFirstBatch draw",
    ),
    "samples that do not draw": (Plain, WORKERS, None),
    "own generator in workers": (Stored, WORKERS, "end of an epoch only: in worker processes, loading changes `gen"),
    "own generator, read again": (Stored, {}, "end of an epoch only: the dataset of SkipsWithTheFirstBatch keeps"),
}


@pytest.mark.parametrize("case", OBSERVED)
def test_draws_that_no_state_includes_are_observed_before_a_state_is_saved(case, tmp_path, caplog):
    dataset, options, message = OBSERVED[case]
    own = []
    loader = SkipsWithTheFirstBatch(dataset(), 4, **options, worker_init_fn=own.append if options else None)
    stopped, _ = train(tmp_path, lambda: loader, stop=2)
    assert stopped.stopped
    assert loader.worker_init_fn == (own.append if options else None)
    assert bool(list((tmp_path / "run").rglob("*.ckpt"))) is (message is None)
    assert message is None or message in caplog.text


def test_state_of_a_loader_that_is_read_ahead_is_one_batch_back():
    loader = StatefulLoader(Unsized(Cursor(Samples(12), 2)), deferred=False)
    assert loader.reads_ahead
    iterator = iter(loader)
    for _ in range(3):
        next(iterator)
    assert loader.position(ahead=1)["state"]["at"] == 2
    assert loader.position(ahead=0)["state"]["at"] == 3


@pytest.mark.parametrize("name", ["cursor", "skips with the first batch", "keeps its pass"])
@pytest.mark.parametrize("taken", [0, 2, 3])
def test_resumed_loader_continues_with_the_next_batch(name, taken):
    def read(loader, count):
        iterator = iter(loader)
        return [digest(next(iterator)) for _ in range(count)]

    seed_random_states(1)
    expected = read(StatefulLoader(LOADERS[name](), deferred=False), 4)
    seed_random_states(1)
    stopped = StatefulLoader(LOADERS[name](), deferred=False)
    read(stopped, taken)
    position = stopped.position(ahead=0)
    seed_random_states(99)  # a resume begins with other random states
    resumed = StatefulLoader(LOADERS[name](), deferred=True)
    resumed.resume(position, at_start=False)
    assert read(resumed, 4 - taken) == expected[taken:]
    assert resumed.taken == 4


def test_state_of_the_loader_is_that_of_the_wrapped_one():
    loader = StatefulLoader(Cursor(Samples(12), 2), deferred=False)
    assert isinstance(loader, ReplayedLoader)
    loader.load_state_dict({"passes": 1, "at": 2})
    assert loader.state_dict() == {"passes": 1, "at": 2}
    assert loader.batch == 2
    assert len(loader) == 6


# -- combinations that are read one batch ahead ------------------------------------------------------------------------


class Half(IterableDataset):
    def __iter__(self):
        return iter(SAMPLES[torch.randperm(16)[:8]] + torch.randn(8, 4))


PARTS = {
    "map": lambda: DataLoader(Augmented(), 4, shuffle=True),
    "map, workers": lambda: DataLoader(Augmented(), 4, shuffle=True, num_workers=1),
    "stream": lambda: DataLoader(Shuffled(), 4),
    "short stream": lambda: DataLoader(Half(), 4),
    "state": lambda: Cursor(Samples(16), 4),
}
COMBINATIONS = [
    ("map", "stream"),
    ("stream", "map"),
    ("short stream", "map"),
    ("map", "short stream"),
    ("state", "stream"),
    pytest.param("short stream", "map, workers", marks=pytest.mark.slow),
]


@pytest.mark.sampled
@pytest.mark.parametrize("stop", [3, 4])
@pytest.mark.parametrize("mode", ["max_size_cycle", "max_size", "min_size"])
@pytest.mark.parametrize(("first", "second"), COMBINATIONS)
def test_combination_without_a_length_ends_like_an_uninterrupted_one(first, second, mode, stop, tmp_path):
    def loader():
        return CombinedLoader({"first": PARTS[first](), "second": PARTS[second]()}, mode)

    assert_continues_exactly(lambda folder, at: train(folder, loader, at, max_epochs=4), tmp_path, stop)
