"""Remaining work in real trainings under every limit of the Trainer; expected values are computed by hand."""

import math

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_green._lightning.loops import between_steps, wrap_loops
from lightning_green.run.remaining_work import StepTimer, remaining_work

PER_BATCH, PER_VALIDATION = 2.0, 7.0


def timed(seconds, count, timer=None, start=0.0):
    timer = timer or StepTimer()
    for batch in range(1, count + 1):
        timer.batch(start + batch * seconds)
    return timer


def test_step_time_is_unknown_before_a_few_batches():
    timer = StepTimer()
    for batch, known in enumerate([False, False, False, False, True], start=1):
        timer.batch(batch * 0.5)
        assert (timer.seconds_per_batch is not None) is known
    assert timer.seconds_per_batch == pytest.approx(0.5)


def test_warm_up_batches_are_excluded():
    timer = StepTimer()
    timer.batch(60.0)  # compilation
    for batch in range(1, 10):
        timer.batch(60.0 + batch * 0.5)
    assert timer.seconds_per_batch == pytest.approx(0.5)


def test_pauses_and_validations_are_excluded():
    timer = timed(0.5, 10)
    timer.exclude(3600.0)
    timer.validation_began(3605.0)
    timer.validation_ended(3612.0)
    timed(0.5, 10, timer, start=3612.0)
    assert timer.seconds_per_batch == pytest.approx(0.5)
    assert timer.seconds_per_validation == pytest.approx(7.0)


def test_step_time_follows_a_training_that_slows_down():
    timer = timed(0.01, 1000)
    assert timer.seconds_per_batch == pytest.approx(0.01, rel=1e-3)
    timed(1.0, 400, timer, start=10.0)
    assert timer.seconds_per_batch == pytest.approx(1.0, rel=1e-2)


def test_earlier_measurement_is_used_until_a_new_one_exists():
    timer = StepTimer(3.0, 9.0)
    assert (timer.seconds_per_batch, timer.seconds_per_validation) == (3.0, 9.0)
    timed(0.5, 10, timer)
    assert timer.seconds_per_batch == pytest.approx(0.5)
    timer.validation_ended(1.0)  # of a validation without a recorded start
    assert timer.seconds_per_validation == 9.0


class Net(pl.LightningModule):
    def __init__(self, optimizers=1):
        super().__init__()
        self.layer, self.count = nn.Linear(2, 1), optimizers
        self.automatic_optimization = optimizers == 1

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).mean()
        if not self.automatic_optimization:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
        return loss

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), 0.1) for _ in range(self.count)]


class Stream(IterableDataset):
    """A data set without a length."""

    def __iter__(self):
        return iter([(torch.zeros(2),)] * 12)


class End(pl.Callback):
    """Ends a training without a limit after 8 steps."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.global_step >= 8


def answers(tmp_path, model=None, validate=False, stream=False, timer=None, end=(), **trainer):
    """Train 12 samples in batches of 2 (6 per epoch) and return the remaining work at each boundary."""
    timer, found = timer or StepTimer(PER_BATCH, PER_VALIDATION), []
    loader = DataLoader(Stream(), 2) if stream else DataLoader(TensorDataset(torch.zeros(12, 2)), 2)
    options = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "default_root_dir": tmp_path,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 1.0 if validate else 0,
        "callbacks": list(end),
    }
    trainer = pl.Trainer(**{**options, **trainer})

    def between_batches():
        if between_steps(trainer):
            found.append(remaining_work(trainer, timer))

    undo = wrap_loops(
        trainer,
        is_tuning=lambda: False,
        before_epoch=lambda: found.append(remaining_work(trainer, timer)),
        before_batches=lambda: None,
        after_batch=between_batches,
        after_run=lambda: None,
    )
    trainer.fit(model or Net(), loader, DataLoader(TensorDataset(torch.zeros(6, 2)), 2) if validate else None)
    undo()
    return found


def seconds(found):
    return [answer.seconds for answer in found]


def test_max_epochs_determines_remaining_work(tmp_path):
    found = answers(tmp_path, max_epochs=3)
    assert seconds(found) == [PER_BATCH * left for left in range(18, 0, -1)]
    assert {answer.why for answer in found} == {"`max_epochs`"}


def test_max_steps_before_max_epochs_determines_remaining_work(tmp_path):
    found = answers(tmp_path, max_epochs=3, max_steps=8)
    assert seconds(found) == [PER_BATCH * left for left in range(8, -1, -1)]
    assert {answer.why for answer in found} == {"`max_steps`"}


def test_accumulated_steps_count_several_batches(tmp_path):
    found = answers(tmp_path, max_epochs=-1, max_steps=5, accumulate_grad_batches=3)
    assert seconds(found) == [PER_BATCH * left for left in (15, 12, 9, 6, 3, 0)]


def test_several_optimizers_count_several_steps_per_batch(tmp_path):
    found = answers(tmp_path, model=Net(optimizers=2), max_epochs=-1, max_steps=8)
    assert seconds(found) == [PER_BATCH * left for left in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize(
    ("trainer", "validations"),
    [
        ({}, 2),
        ({"val_check_interval": 0.5}, 4),
        ({"val_check_interval": 2}, 6),
        ({"val_check_interval": 4, "check_val_every_n_epoch": None}, 3),
        ({"check_val_every_n_epoch": 2}, 1),
        ({"limit_val_batches": 0}, 0),
    ],
)
def test_validations_are_included(tmp_path, trainer, validations):
    found = answers(tmp_path, validate=True, max_epochs=2, **trainer)
    assert found[0].seconds == pytest.approx(PER_BATCH * 12 + PER_VALIDATION * validations)
    assert seconds(found) == sorted(seconds(found), reverse=True)
    assert found[6].seconds == pytest.approx(found[0].seconds / 2)  # after one of two epochs


def test_unmeasured_validation_batches_count_as_training_batches(tmp_path):
    found = answers(tmp_path, validate=True, timer=StepTimer(PER_BATCH), max_epochs=2)
    assert found[0].seconds == pytest.approx(PER_BATCH * 12 + 2 * 3 * PER_BATCH)


def test_max_time_before_max_epochs_determines_remaining_work(tmp_path):
    found = answers(tmp_path, max_epochs=3, max_time={"seconds": 30})
    assert found[0].why == "`max_time`"
    assert 25.0 < found[0].seconds <= 30.0
    assert found[-1].why == "`max_epochs`"
    found = answers(tmp_path, max_epochs=2, max_time={"hours": 5})
    assert (found[0].seconds, found[0].why) == (PER_BATCH * 12, "`max_epochs`")


class Logs(Net):
    """Logs a loss that does not improve."""

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", torch.tensor(1.0))


@pytest.mark.parametrize(
    ("stopping", "trainer", "batches"),
    [
        # the first check improves on infinity, so the training ends with the fourth one
        ({"patience": 3}, {}, [18, 17, 16, 15, 14, 13, 18, 17]),
        ({"patience": 2}, {"min_epochs": 6}, [36, 35, 34, 33, 32, 31, 30, 29]),
        ({"patience": 3}, {"val_check_interval": 3}, [9, 8, 7, 9, 8, 7, 6, 5]),
        ({"patience": 3, "stopping_threshold": 0.5}, {}, [6, 5, 4, 3, 2, 1, 6, 5]),
        ({"patience": 20}, {}, [None] * 8),
    ],
)
def test_early_stopping_bounds_the_remaining_work_from_below(tmp_path, stopping, trainer, batches):
    stop = pl.callbacks.EarlyStopping("val_loss", **stopping)
    found = answers(tmp_path, model=Logs(), validate=True, max_epochs=8, end=[stop], **trainer)
    every = trainer.get("val_check_interval", 6)
    expected = [None if left is None else left * PER_BATCH + left / every * PER_VALIDATION for left in batches]
    assert [answer.least for answer in found[:8]] == pytest.approx(expected)
    assert found[0].seconds == pytest.approx(48 * PER_BATCH + 48 / every * PER_VALIDATION)


def test_max_time_without_other_limits(tmp_path):
    found = answers(tmp_path, max_epochs=-1, max_time={"minutes": 2}, end=[End()])
    assert {answer.why for answer in found} == {"`max_time`"}
    assert 110.0 < found[-1].seconds < found[0].seconds <= 120.0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"max_epochs": -1}, "no `max_epochs`, `max_steps` or `max_time`"),
        ({"max_epochs": -1, "stream": True}, "no `max_epochs`, `max_steps` or `max_time`"),
    ],
)
def test_remaining_work_without_limit_is_unknown_with_a_reason(tmp_path, options, why):
    found = answers(tmp_path, end=[End()], **options)
    assert len(found) > 5
    assert {answer.seconds for answer in found} == {None}
    assert why in found[0].why


def test_loader_without_a_length_is_known_after_the_first_epoch(tmp_path):
    found = answers(tmp_path, stream=True, validate=True, max_epochs=3)
    first, later = found[:6], found[6:]
    assert {(answer.seconds, answer.why) for answer in first} == {
        (None, "the training loader has no length, so the remaining work is known after the first epoch")
    }
    assert seconds(later) == pytest.approx([PER_BATCH * left + PER_VALIDATION * left / 6 for left in range(12, 0, -1)])


def test_iterable_dataset_with_max_steps(tmp_path):
    found = answers(tmp_path, stream=True, max_epochs=9, max_steps=5)
    assert seconds(found) == [PER_BATCH * left for left in range(5, -1, -1)]


def test_remaining_work_is_unknown_before_a_step_is_measured(tmp_path):
    found = answers(tmp_path, timer=StepTimer(), max_epochs=1)
    assert {answer.seconds for answer in found} == {None}
    assert "time of a step" in found[0].why
    assert not any(math.isnan(answer.seconds or 0.0) for answer in found)
