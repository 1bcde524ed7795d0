import lightning.pytorch as pl
import pytest
from lightning.pytorch.utilities import CombinedLoader

from lightning_green._lightning.loaders import (
    consumed_loaders,
    prefetched_batches,
    rebuild_train_iterator,
    set_consumed_loaders,
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


def test_exhausted_loaders_of_a_cycle_are_read_and_set(tmp_path):
    found = []

    class Inspect(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            found.append(consumed_loaders(trainer))
            if batch_idx == 1:
                set_consumed_loaders(trainer, [True, True])

    class Model(RecordingModel):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch[0], batch_idx)

    loader = CombinedLoader([batches(8), batches(4)], "max_size_cycle")
    quiet_trainer(tmp_path, Inspect()).fit(Model(), loader)
    assert found[:2] == [[False, False], [False, False]]
    assert len(found) == 2  # the epoch ends once all loaders are exhausted


def test_rebuilt_iterator_starts_from_the_first_batch(tmp_path):
    class Rebuild(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            assert train_loaders(trainer).flattened[0].dataset is loader.dataset
            if batch_idx == 1:
                rebuild_train_iterator(trainer)

    model, loader = RecordingModel(), batches()
    quiet_trainer(tmp_path, Rebuild()).fit(model, loader)
    assert model.seen[:4] == [[0, 1], [2, 3], [0, 1], [2, 3]]


def test_fetches_of_training_batches_are_watched_until_undone(tmp_path):
    trainer, found = quiet_trainer(tmp_path), []
    undo = watch_fetches(trainer, lambda: found.append("began"), lambda: found.append("ended"))
    trainer.fit(RecordingModel(), batches())
    assert found == ["began", "ended"] * (len(found) // 2)
    assert len(found) >= 12
    undo()
    assert not {"_on_before_fetch", "_on_after_fetch"} & set(trainer.fit_loop.epoch_loop.__dict__)
