from contextlib import contextmanager

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_green.resume.errors import InexactStateError
from lightning_green.resume.iterable_loaders import ReplayedLoader
from lightning_green.resume.loader_positions import LoaderPositions
from lightning_green.resume.loaders import CountingLoader
from tests.helpers.trainers import RecordingModel, batches, quiet_trainer


class Iterable:
    def __len__(self):
        return 6

    def __iter__(self):
        return iter(batches())


@contextmanager
def fit(folder, loader, is_tuning=lambda: False, validation=None, **options):
    """Train one epoch; return the loaders that were read and their positions, before the fit gives the loaders back."""
    trainer = quiet_trainer(folder, **{"limit_val_batches": 1.0 if validation is not None else 0, **options})
    positions = LoaderPositions(trainer, is_tuning)
    undo = positions.attach(resuming=False)
    trainer.fit(RecordingModel(), loader, validation)
    read = trainer.fit_loop._combined_loader.flattened
    yield read, positions
    undo()
    assert trainer.train_dataloader is loader
    assert trainer.fit_loop._combined_loader.flattened == [loader]


@pytest.mark.parametrize(("loader", "kind"), [(batches(), CountingLoader), (Iterable(), ReplayedLoader)])
def test_training_loaders_are_wrapped_and_counted(loader, kind, tmp_path):
    with fit(tmp_path, loader) as ((wrapped,), positions):
        assert isinstance(wrapped, kind)
        assert [one["taken"] for one in positions.capture()["loaders"]] == [6]


class Unsized:
    def __iter__(self):
        return iter(batches())


@pytest.mark.parametrize(("options", "ahead"), [({}, True), ({"limit_train_batches": 3}, False)])
def test_loader_without_a_length_is_read_ahead_unless_the_trainer_has_a_limit(options, ahead, tmp_path):
    with fit(tmp_path, Unsized(), **options) as ((wrapped,), _):
        assert wrapped.reads_ahead is ahead


class Combined(DataLoader):
    """Yields batches of loaders of its own, and its own sampler is not read."""

    def __init__(self, *loaders):
        super().__init__(loaders[0].dataset, batch_size=loaders[0].batch_size)
        self.loaders = loaders

    def __iter__(self):
        return map(torch.cat, zip(*self.loaders, strict=True))


def test_batches_that_no_sampler_chooses_are_reported(tmp_path):
    with fit(tmp_path, Combined(batches(), batches())) as (_, positions):
        assert "does not yield one batch for each that its sampler chooses" in positions.why_epochs_only
    with fit(tmp_path, batches()) as (_, positions):
        assert positions.why_epochs_only is None


def test_loaders_of_a_tuner_are_not_wrapped(tmp_path):
    with fit(tmp_path, batches(), is_tuning=lambda: True) as ((loader,), positions):
        assert not isinstance(loader, CountingLoader)
        assert positions.capture()["loaders"] == []


def test_validation_loaders_are_recorded(tmp_path):
    with fit(tmp_path, batches(), validation=batches(4)) as (_, positions):
        assert [created for created, _ in positions.capture()["validation"]] == [True]


def test_changed_number_of_loaders_is_refused(tmp_path):
    refused = pytest.raises(InexactStateError, match=r"saved with 2 training loader\(s\) and there are 1 now")
    with fit(tmp_path, batches()) as (_, positions), refused:
        positions.restore({"loaders": [{}, {}]}, at_start=False)
