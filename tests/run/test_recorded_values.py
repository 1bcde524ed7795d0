"""Comparison of the data and the optimizers with those that the run directory has recorded."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.utilities.combined_loader import CombinedLoader

from lightning_green.run.recorded_values import RecordedValues
from lightning_green.run.run import OtherTrainingError
from tests.helpers.interrupted_fits import assert_continues_exactly, train_part
from tests.helpers.resume_training import digest
from tests.helpers.trainers import batches


def trainer(lr=0.1, samples=12, batch_size=2, world_size=1):
    """Return the parts of a Trainer that are compared."""
    loader = CombinedLoader(batches(samples, batch_size))
    iter(loader)
    return SimpleNamespace(
        optimizers=[torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)],
        lr_scheduler_configs=[],
        callbacks=[],
        world_size=world_size,
        num_training_batches=samples // batch_size // world_size,
        fit_loop=SimpleNamespace(_combined_loader=loader),
    )


@pytest.fixture
def session(opened):
    """Return a session whose directory has recorded the values of ``trainer()``, and that continues the fit."""
    session, _ = opened()
    recorded = RecordedValues(session, trainer(), [])
    recorded.check_data()
    recorded.check_optimizers()
    session.continuing = True
    return session


def check(session, allow_inexact=False, **given):
    """Compare both values; return the changed optimizers and the lines for the user."""
    messages = []
    recorded = RecordedValues(session, trainer(**given), messages)
    recorded.allow_inexact = allow_inexact
    changed = recorded.check_optimizers()
    recorded.check_data()
    return changed, messages


def test_same_values_continue_silently(session):
    assert check(session) == (None, [])


def test_first_process_records_without_comparing(session):
    session.continuing = False
    assert check(session, lr=0.5, samples=24) == (None, [])
    record = session.record_on_disk
    assert record["optimization"]["optimizers"][0]["groups"][0]["lr"] == 0.5
    assert record["data"]["samples"] == [24]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"lr": 0.5}, r"optimizers\[0\]\.groups\[0\]\.lr: 0\.1 then, 0\.5 now"),
        ({"samples": 24}, r"samples: \[12\] then, \[24\] now.*training_batches: 6 then, 12 now"),
        ({"world_size": 2}, r"world_size: 1 then, 2 now"),
    ],
)
def test_changed_value_is_refused_and_the_record_is_kept(session, monkeypatch, given, found):
    monkeypatch.setenv("LIGHTNING_GREEN_FORCE", "0")
    before = dict(session.record_on_disk)
    with pytest.raises(OtherTrainingError, match=found):
        check(session, **given)
    assert session.record_on_disk == before


def test_force_continues_with_the_new_values(session, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_FORCE", "1")
    (then, now), messages = check(session, lr=0.5)
    assert [one["optimizers"][0]["groups"][0]["lr"] for one in (then, now)] == [0.1, 0.5]
    assert messages[0].startswith("Continued with other values, as --force asks for: ")
    monkeypatch.delenv("LIGHTNING_GREEN_FORCE")
    assert check(session, lr=0.5) == (None, [])  # the new values are recorded


def test_another_number_of_processes_is_accepted_if_the_user_allows_it(session):
    assert check(session, allow_inexact=True, world_size=2, batch_size=1) == (None, [])


def test_batch_size_is_compared_if_the_number_of_processes_is_the_same(session):
    with pytest.raises(OtherTrainingError, match="batch_sizes"):
        check(session, allow_inexact=True, batch_size=1)


def test_optimizers_are_compared_once(session):
    recorded = RecordedValues(session, trainer(), [])
    recorded.check_optimizers()
    recorded._trainer = trainer(lr=0.5)
    assert recorded.check_optimizers() is None


def test_nothing_is_compared_without_a_run_directory(session):
    session.run.folder = None
    assert check(session, lr=0.5, samples=24) == (None, [])


@pytest.mark.parametrize("stop", [5, 8, 11])
def test_scheduler_of_weight_averaging_is_not_a_changed_schedule(stop, tmp_path):
    """``StochasticWeightAveraging`` removes the scheduler of the script, before or after the comparison."""

    class Scheduled(BoringModel):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), 0.1)
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]

    def train(folder, at):
        torch.manual_seed(1)
        module = Scheduled()
        callbacks = [StochasticWeightAveraging(swa_lrs=1e-2, swa_epoch_start=1, annealing_epochs=1)]
        part = train_part(folder, module, batches(8), stop=at, callbacks=callbacks, max_epochs=3)
        return part, digest(module.state_dict())

    assert_continues_exactly(train, tmp_path, stop)
