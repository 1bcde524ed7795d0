from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
from lightning.pytorch.utilities import CombinedLoader

from lightning_green._lightning.loaders import (
    consumed_loaders,
    prefetched_batches,
    reads_ahead,
    rebuild_train_iterator,
    train_loaders,
    watch_fetches,
)
from tests.helpers.trainers import RecordingModel, batches, quiet_trainer


class Unsized:
    def __init__(self, inner):
        self.inner = inner

    def __iter__(self):
        return iter(self.inner)


@pytest.mark.parametrize("sized", [True, False])
def test_one_batch_is_prefetched_from_loaders_without_a_length(sized, tmp_path):
    found = []

    class Inspect(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            found.append(prefetched_batches(trainer))

    loader = batches() if sized else Unsized(batches())
    quiet_trainer(tmp_path, Inspect()).fit(RecordingModel(), loader)
    assert found[:-1] == [0 if sized else 1] * 5


class Pairs(RecordingModel):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch[0], batch_idx)


def test_exhausted_loaders_of_a_cycle_are_read_and_set(tmp_path):
    found = []

    class Inspect(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            found.append(consumed_loaders(trainer))
            if batch_idx == 1:
                rebuild_train_iterator(trainer, [True, True])
                found.append(consumed_loaders(trainer))

    loader = CombinedLoader([batches(8), batches(4)], "max_size_cycle")
    quiet_trainer(tmp_path, Inspect()).fit(Pairs(), loader)
    assert found[:3] == [[False, False], [False, False], [True, True]]


@pytest.mark.parametrize(("mode", "ahead"), [("min_size", False), ("max_size", True), ("max_size_cycle", True)])
def test_combination_is_read_ahead_if_it_has_no_length(mode, ahead):
    assert not reads_ahead(CombinedLoader([batches(8), batches(4)], mode))
    loader = CombinedLoader([batches(8), Unsized(batches(4))], mode)
    assert reads_ahead(loader) is ahead


def test_rebuilt_iterator_starts_from_the_first_batch(tmp_path):
    class Rebuild(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            assert train_loaders(trainer).flattened[0].dataset is loader.dataset
            if batch_idx == 1:
                rebuild_train_iterator(trainer, [])

    model, loader = RecordingModel(), batches()
    quiet_trainer(tmp_path, Rebuild()).fit(model, loader)
    assert model.seen[:4] == [[0, 1], [2, 3], [0, 1], [2, 3]]


def test_fetches_of_training_batches_are_watched_until_undone(tmp_path):
    trainer, counts, read = quiet_trainer(tmp_path), SimpleNamespace(data_wait_seconds=0.0), []

    def monotonic():
        read.append(3.0 ** len(read))
        return read[-1]

    undo = watch_fetches(trainer, monotonic, counts)
    trainer.fit(RecordingModel(), batches())
    assert len(read) >= 12
    assert counts.data_wait_seconds == sum(ended - began for began, ended in zip(read[::2], read[1::2], strict=True))
    undo()
    assert not {"_on_before_fetch", "_on_after_fetch"} & set(trainer.fit_loop.epoch_loop.__dict__)
