import logging

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import WeightAveraging
from torch.utils.data import DataLoader, IterableDataset

from lightning_green.callbacks._compression import (
    TrainingLength,
    averages_weights,
    callbacks_of,
    optimizer_steps,
    put_in_order,
    refuse_sharded,
)
from lightning_green.callbacks.distillation import KnowledgeDistillation
from lightning_green.callbacks.pruning import Pruning
from lightning_green.callbacks.quantization import QuantizationAwareTraining
from lightning_green.compression.schedules import Moment
from tests.helpers.compression_fits import Lit, Net, TwoOptimizers, loader, trainer


class Lengths(pl.Callback):
    """Record the length of the training and the number of steps as the callbacks read them."""

    def __init__(self, total_steps=None):
        self.total_steps, self.steps = total_steps, []

    def on_train_start(self, trainer, pl_module):
        self.length = TrainingLength.of(trainer, self.total_steps)

    def on_train_batch_end(self, trainer, *args):
        self.steps.append(optimizer_steps(trainer))


@pytest.mark.parametrize(
    ("options", "steps", "per_epoch"),
    [
        ({"epochs": 3}, 18, 6),
        ({"epochs": 3, "accumulate_grad_batches": 2}, 9, 3),
        ({"epochs": -1, "max_steps": 10}, 10, 6),
        ({"epochs": 2, "limit_train_batches": 4}, 8, 4),
    ],
)
def test_length_is_in_optimizer_steps(tmp_path, options, steps, per_epoch):
    lengths = Lengths()
    trainer(tmp_path, [lengths], **options).fit(Lit(), loader())
    assert lengths.length == TrainingLength(steps, per_epoch)
    assert lengths.steps[-1] == steps
    assert lengths.length.step(Moment.parse("begin", 0.5)) == steps // 2
    assert lengths.length.step(Moment.parse("begin", "1ep")) == per_epoch


def test_given_total_takes_precedence(tmp_path):
    lengths = Lengths(total_steps=100)
    trainer(tmp_path, [lengths], 1).fit(Lit(), loader())
    assert lengths.length == TrainingLength(100, 6)


def test_unknown_length_raises(tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            yield from loader(8).dataset

    with pytest.raises(ValueError, match="`total_steps` should be set"):
        trainer(tmp_path, [Lengths()]).fit(Lit(), DataLoader(Stream(), 4))


def test_steps_of_two_optimizers_count_once(tmp_path):
    lengths = Lengths()
    trainer(tmp_path, [lengths], 1).fit(TwoOptimizers(), loader())
    assert lengths.steps == [1, 2, 3, 4, 5, 6]


def test_callbacks_run_in_the_order_of_their_effects(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    other = Lengths()
    given = [KnowledgeDistillation(Net()), other, QuantizationAwareTraining(), Pruning(0.5)]
    fitted = trainer(tmp_path, given)
    put_in_order(fitted)
    names = [type(callback).__name__ for callback in callbacks_of(fitted) if callback in given]
    assert names == ["Pruning", "Lengths", "QuantizationAwareTraining", "KnowledgeDistillation"]
    assert "in the order Pruning, QuantizationAwareTraining, KnowledgeDistillation" in caplog.text
    caplog.clear()
    put_in_order(fitted)
    assert caplog.text == ""


def test_average_of_weights_is_found(tmp_path):
    assert not averages_weights(trainer(tmp_path, []))
    assert averages_weights(trainer(tmp_path, [WeightAveraging()]))


def test_sharded_parameters_are_refused(tmp_path):
    refuse_sharded(trainer(tmp_path, []), "Pruning")
    sharded = trainer(tmp_path, [])
    sharded.strategy.__class__ = pl.strategies.FSDPStrategy
    with pytest.raises(ValueError, match=r"`Pruning` does not support sharded parameters, got .* FSDPStrategy"):
        refuse_sharded(sharded, "Pruning")
