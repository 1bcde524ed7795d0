"""Attributes that a script changes during a fit are those of an uninterrupted fit after a resume."""

import collections
import importlib
import itertools
import random
import sys
import types
import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, EarlyStopping, GradientAccumulationScheduler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_green.resume import object_walk
from lightning_green.resume.plain_data import from_plain, to_plain
from lightning_green.resume.script_attributes import ScriptAttributes
from tests.helpers.interrupted_fits import assert_continues_exactly, train_part
from tests.helpers.resume_training import digest
from tests.helpers.trainers import BoringModel, quiet_trainer


class Counter:
    """An object of the script."""

    def __init__(self):
        self.total, self.by_name = 0, {}


class Holder(pl.Callback):
    """A callback with a value."""

    def __init__(self, value=None):
        self.value = value


def attributes_of(folder, callback=None, module=None):
    trainer = quiet_trainer(folder, callback or Holder())
    trainer.strategy.connect(module or BoringModel())
    return trainer, ScriptAttributes(trainer)


def saved_and_restored(folder, make, change):
    """Change the value of a callback, save it, and return the value that another process restores."""
    callback = Holder(make())
    _, attributes = attributes_of(folder, callback)
    attributes.begin()
    change(callback)
    saved = from_plain(to_plain(attributes.capture()))
    other = Holder(make())
    before = other.value
    attributes_of(folder, other)[1].restore(saved)
    return other.value, before


def set_to(value):
    return lambda callback: setattr(callback, "value", value)


@pytest.mark.parametrize("value", [0.5, True, "text", None, (1, "b"), {"a": [1, 2]}, 3 + 1j, float("inf")])
def test_plain_values_are_restored(tmp_path, value):
    assert saved_and_restored(tmp_path, lambda: "before", set_to(value))[0] == value


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: [1], lambda value: value.append(2)),
        (dict, lambda value: value.update(a={"b": 1})),
        (set, lambda value: value.add(3)),
        (lambda: collections.deque([1, 2], 2), lambda value: value.append(3)),
        (lambda: np.zeros(3), lambda value: value.__setitem__(1, 5.0)),
        (lambda: torch.zeros(3), lambda value: value.add_(1)),
        (lambda: [torch.zeros(2), torch.zeros(2)], lambda value: value[1].add_(1)),
    ],
    ids=["list", "dict", "set", "deque", "array", "tensor", "list of tensors"],
)
def test_objects_that_change_in_place_are_restored_in_place(tmp_path, make, change):
    """Other objects of the script may refer to the same list."""
    expected = make()
    change(expected)
    restored, same = saved_and_restored(tmp_path, make, lambda callback: change(callback.value))
    assert restored is same
    assert digest(list(restored)) == digest(list(expected))
    assert type(restored) is type(expected)


def test_tensor_to_which_an_attribute_refers_is_not_changed(tmp_path):
    def make():
        samples = [torch.full((2,), float(number)) for number in range(3)]
        return Holder(samples[0]), samples

    (callback, samples), (other, others) = make(), make()
    _, attributes = attributes_of(tmp_path, callback)
    attributes.begin()
    callback.value = samples[1]
    saved = from_plain(to_plain(attributes.capture()))
    attributes_of(tmp_path, other)[1].restore(saved)
    assert other.value.tolist() == [1, 1]
    assert [one.tolist() for one in others] == [[0, 0], [1, 1], [2, 2]]


def test_tensor_that_cannot_be_written_to_is_replaced(tmp_path):
    restored, _ = saved_and_restored(tmp_path, lambda: torch.zeros(1).expand(3), set_to(torch.ones(3)))
    assert restored.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("make", "draw"),
    [
        (lambda: np.random.default_rng(3), lambda one: one.random()),
        (lambda: np.random.RandomState(3), lambda one: one.random_sample()),
        (lambda: random.Random(3), lambda one: one.random()),
        (lambda: torch.Generator().manual_seed(3), lambda one: float(torch.rand(1, generator=one))),
    ],
    ids=["NumPy", "old NumPy", "Python", "torch"],
)
def test_generators_continue(tmp_path, make, draw):
    straight = make()
    expected = [draw(straight) for _ in range(4)][2:]
    restored, same = saved_and_restored(tmp_path, make, lambda callback: (draw(callback.value), draw(callback.value)))
    assert restored is same
    assert [draw(restored) for _ in range(2)] == expected


@pytest.mark.parametrize("make", [itertools.count, lambda: iter([5, 6, 7]), lambda: iter(range(9))])
def test_iterators_continue(tmp_path, make):
    straight = list(itertools.islice(make(), 3))
    restored, _ = saved_and_restored(tmp_path, make, lambda callback: next(callback.value))
    assert list(itertools.islice(restored, 2)) == straight[1:]


def test_iterators_of_unknown_position_are_reported_before_they_advance(tmp_path):
    _, attributes = attributes_of(tmp_path, Holder(i * i for i in range(9)))
    attributes.begin()
    with pytest.warns(UserWarning, match=r"These attributes are iterators, .*: callbacks\[\d\]\.value\. After a pause"):
        attributes.capture()


class Countdown:
    """An iterator of the script."""

    def __init__(self, inner=None):
        self.position, self.inner = 0, inner

    def __iter__(self):
        return self

    def __next__(self):
        self.position += 1
        return self.position


@pytest.mark.filterwarnings("error:These attributes")
def test_iterator_of_the_script_continues(tmp_path):
    restored, same = saved_and_restored(tmp_path, Countdown, lambda callback: next(callback.value))
    assert restored is same
    assert next(restored) == 2


def test_generator_in_an_iterator_of_the_script_is_reported(tmp_path):
    _, attributes = attributes_of(tmp_path, Holder(Countdown(i for i in range(9))))
    attributes.begin()
    with pytest.warns(UserWarning, match=r"are iterators, .*: callbacks\[\d\]\.value\.inner\. After a pause"):
        attributes.capture()


def test_attributes_of_objects_of_the_script_are_restored(tmp_path):
    def change(callback):
        callback.value.total, callback.value.by_name["a"] = 3, [1]

    restored, same = saved_and_restored(tmp_path, Counter, change)
    assert restored is same
    assert (restored.total, restored.by_name) == (3, {"a": [1]})


def test_only_what_has_changed_is_saved(tmp_path):
    module = BoringModel()
    module.constant, module.changing = [1, 2], 1
    _, attributes = attributes_of(tmp_path, module=module)
    assert attributes.capture() == {"values": {}, "requires_grad": {}}, "nothing is known before the start"
    attributes.begin()
    module.changing, module.added = 2, "new"
    values = attributes.capture()["values"]
    assert {path: {name: one["value"] for name, one in found.items()} for path, found in values.items()} == {
        "module": {"changing": 2, "added": "new"}
    }


def test_modes_and_settings_of_layers_and_hyperparameters_are_restored(tmp_path):
    class Net(BoringModel):
        def __init__(self, weight=1.0):
            super().__init__()
            self.save_hyperparameters()
            self.norm, self.dropout = nn.BatchNorm1d(2), nn.Dropout(0.5)

    module = Net()
    _, attributes = attributes_of(tmp_path, module=module)
    attributes.begin()
    module.norm.eval()
    module.dropout.p, module.hparams.weight = 0.1, 2.0
    module.layer.weight.requires_grad_(False)
    other = Net()
    attributes_of(tmp_path, module=other)[1].restore(attributes.capture())
    assert (other.norm.training, other.dropout.training, other.dropout.p) == (False, True, 0.1)
    assert other.hparams.weight == 2.0
    assert [one.requires_grad for one in other.layer.parameters()] == [False, True]


def test_references_to_weights_are_left_alone(tmp_path):
    """A list of parameters changes with every step, and copies of them would no longer be trained."""

    def make():
        module = BoringModel()
        module.trained = [module.layer.weight]
        module.view = module.layer.bias.detach().view(-1, 1)
        return module

    module = make()
    _, attributes = attributes_of(tmp_path, module=module)
    attributes.begin()
    with torch.no_grad():
        module.layer.weight.add_(1)
        module.layer.bias.add_(1)
    assert attributes.capture()["values"] == {}


def test_forward_that_ddp_has_set_again_is_no_change(tmp_path):
    class Own(BoringModel):
        pass

    module = Own()
    _, attributes = attributes_of(tmp_path, module=module)
    attributes.begin()
    module.forward = module.forward
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert attributes.capture()["values"] == {}
    module.forward = lambda x: x
    with pytest.warns(UserWarning, match=r"cannot be saved: module\.forward\. After a pause"):
        attributes.capture()


def test_change_that_cannot_be_saved_is_reported_once(tmp_path):
    callback = Holder(lambda: 1)
    _, attributes = attributes_of(tmp_path, callback)
    attributes.begin()
    callback.value = lambda: 2
    with pytest.warns(UserWarning, match=r"cannot be saved: callbacks\[\d\]\.value\. After a pause"):
        assert attributes.capture()["values"] == {}
    assert attributes.capture()["values"] == {}


@pytest.mark.parametrize("value", [torch.nn.Linear(2, 2), types.SimpleNamespace(a=1), DataLoader([1])])
def test_objects_of_libraries_are_not_entered(tmp_path, value):
    callback = Holder(value)
    _, attributes = attributes_of(tmp_path, callback)
    attributes.begin()
    callback.value.another = 1
    found = attributes.capture()["values"]
    assert set(found) <= {f"callbacks[{index}]" for index in range(9)}


def begin_with_sanity_check(attributes):
    attributes.before_sanity_check()
    attributes.after_sanity_check()
    attributes.begin()


def test_object_that_cannot_be_read_does_not_stop_the_training(tmp_path):
    class Unreadable(list):
        def __len__(self):
            raise OSError("the file is closed")

    class Script(BoringModel):
        pass

    module = Script()
    module.number, module.values = 1, Unreadable([1])
    _, attributes = attributes_of(tmp_path, module=module)
    with pytest.warns(UserWarning, match="cannot be read: OSError") as warned:
        begin_with_sanity_check(attributes)
    assert len(warned) == 1
    module.number = 2
    module.layer.bias.requires_grad_(False)
    assert attributes.capture() == {"values": {}, "requires_grad": {"layer.bias": False}}


# -- whole fits -------------------------------------------------------------------------------------------------------


class Net(pl.LightningModule):
    """Sixteen batches in four epochs; each case is a way in which hooks change state."""

    beta = 0.0

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.dropout, self.head = nn.Dropout(0.3), nn.Linear(8, 1)
        self.memory = [torch.zeros(8)]
        self.rng = np.random.default_rng(5)

    def on_train_epoch_start(self):
        self.beta = self.current_epoch / 4
        self.dropout.p = 0.3 + 0.1 * self.current_epoch
        if self.current_epoch % 2:
            self.backbone[1].eval()

    def training_step(self, batch, batch_idx):
        features = self.dropout(self.backbone(batch[0]))
        self.memory[0].mul_(0.9).add_(features.detach().mean(0), alpha=0.1)
        noise = float(self.rng.normal())
        penalty = self.beta * self.head.weight.square().sum() + 0.1 * (features * self.memory[0]).mean()
        return self.head(features).square().mean() + penalty * (1 + 0.1 * noise)

    def validation_step(self, batch, batch_idx):
        values = [3.0, 3.1, 3.2, 1.0, 0.9, 0.8]
        self.log("val_loss", values[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.Adam([one for one in self.parameters() if one.requires_grad], 1e-2)


CASES = {
    "attributes": lambda: [],
    "accumulation by epoch": lambda: [GradientAccumulationScheduler({0: 1, 2: 2})],
    "frozen backbone": lambda: [BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=1e-3)],
    "stopped early, with a minimum": lambda: [EarlyStopping("val_loss", patience=1)],
}


def train(folder, case, stop=None):
    pl.seed_everything(2, verbose=False)
    data, module = TensorDataset(torch.randn(16, 4)), Net()
    options = {"min_epochs": 4, "max_epochs": 6} if "minimum" in case else {"max_epochs": 4}
    loaders = DataLoader(data, 4, shuffle=True), DataLoader(data, 16)
    part = train_part(folder, module, *loaders, stop=stop, callbacks=CASES[case](), limit_val_batches=1, **options)
    return part, digest([module.state_dict(), module.memory, part.trainer.global_step])


@pytest.mark.parametrize("stop", [3, 6, 9])
@pytest.mark.parametrize("case", CASES)
def test_stopped_fit_ends_like_an_uninterrupted_one(case, stop, tmp_path):
    assert_continues_exactly(lambda folder, at: train(folder, case, at), tmp_path, stop)


class MaskedNet(Net):
    """Creates a mask when the batch size changes, also in the sanity check, and counts its validations."""

    def __init__(self):
        super().__init__()
        self.size, self.validations, self.sums = -1, 0, [torch.zeros(1)]
        self.register_buffer("mask", None, persistent=False)

    def _scale(self, batch):
        if len(batch) != self.size:
            self.size, self.mask = len(batch), torch.full((1,), float(len(batch)))
        return 1.0 if self.mask is None else self.mask * (1 + self.validations) + self.sums[0]

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * self._scale(batch[0])

    def validation_step(self, batch, batch_idx):
        self.validations += 1
        self.sums[0] += self._scale(batch[0])


@pytest.mark.parametrize("stops", [(3,), (3, 6), (4, 6), (4, 8)])
def test_attributes_that_the_sanity_check_changes_are_restored(stops, tmp_path):
    """A process that continues the fit skips the sanity check."""

    def part(folder, stop):
        pl.seed_everything(2, verbose=False)
        data, module = TensorDataset(torch.randn(16, 4)), MaskedNet()
        options = {"limit_val_batches": 1, "num_sanity_val_steps": 1, "max_epochs": 4, "check_val_every_n_epoch": 2}
        loaders = DataLoader(data, 4, shuffle=True), DataLoader(data, 4)
        ended = train_part(folder, module, *loaders, stop=stop, **options)
        return ended, digest([module.state_dict(), module.size, module.validations, module.sums, module.mask])

    _, expected = part(tmp_path / "straight", None)
    for stop in stops:
        assert part(tmp_path / "stopped", stop)[0].stopped
    assert part(tmp_path / "stopped", None)[1] == expected


class DuringSanityCheck(pl.Callback):
    """Sets a loss weight in the first and in the last hook of the sanity check."""

    def on_sanity_check_start(self, trainer, pl_module):
        pl_module.beta = 0.5

    def on_sanity_check_end(self, trainer, pl_module):
        pl_module.gamma = pl_module.beta


class WeightedNet(pl.LightningModule):
    """Its loss weights come from callbacks, and grow with each validation."""

    beta = gamma = 0.0

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean() * (1 + self.beta) + self.gamma * self.layer.weight.square().sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-1)


def sanity_checked(folder, make, stop, **callbacks):
    """Train a module for three epochs after a sanity check, with a validation at the end of each; return it too."""
    pl.seed_everything(2, verbose=False)
    data, module = TensorDataset(torch.randn(16, 4)), make()
    options = {"limit_val_batches": 1, "num_sanity_val_steps": 1, "max_epochs": 3}
    loaders = DataLoader(data, 4, shuffle=True), DataLoader(data, 4)
    return train_part(folder, module, *loaders, stop=stop, **callbacks, **options), module


@pytest.mark.parametrize("where", ["callbacks", "last"])
def test_attributes_that_hooks_of_the_sanity_check_set_are_restored(where, tmp_path):
    """Of a callback before and after those of this package."""

    def train(folder, stop):
        part, module = sanity_checked(folder, WeightedNet, stop, **{where: [DuringSanityCheck()]})
        return part, digest([module.state_dict(), module.beta, module.gamma])

    assert_continues_exactly(train, tmp_path, 6)


class ValidatedNet(WeightedNet):
    """Resets what the sanity check has recorded in ``on_train_start``, as scripts often do."""

    def __init__(self):
        super().__init__()
        self.best = None

    def on_train_start(self):
        self.best, self.val_losses = 1e9, []

    def training_step(self, batch, batch_idx):
        self.beta = 0.1 * len(self.val_losses)
        return super().training_step(batch, batch_idx)

    def on_validation_start(self):
        if not hasattr(self, "val_losses"):
            self.val_losses = []

    def validation_step(self, batch, batch_idx):
        loss = float(self.layer(batch[0]).square().mean())
        self.best = min(loss, self.best or 1e9)
        self.val_losses.append(loss)


@pytest.mark.parametrize("stop", [6, 8])
def test_attributes_that_the_sanity_check_and_on_train_start_set_are_restored(stop, tmp_path):
    def train(folder, stop):
        part, module = sanity_checked(folder, ValidatedNet, stop)
        assert stop or len(module.val_losses) == 3
        return part, digest([module.state_dict(), module.best, module.val_losses])

    assert_continues_exactly(train, tmp_path, stop)


PACKAGE = """
import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers.logger import Logger


class Forecaster(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.losses, self._seen = torch.nn.Linear(4, 1), [], 0

    def training_step(self, batch, batch_idx):
        self._seen += 1
        loss = self.layer(batch[0]).square().mean() * (1 + self._seen)
        self.losses.append((self.global_step, float(loss)))
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-2)


class Experiment:
    def __init__(self):
        self.rows = {}


class MemoryLogger(Logger):
    name, version = "memory", 0

    def __init__(self):
        super().__init__()
        self._experiment, self.unsaved, self.written = None, [], 0

    @property
    def experiment(self):
        self._experiment = self._experiment or Experiment()
        return self._experiment

    def log_hyperparams(self, params): ...

    def log_metrics(self, metrics, step=None):
        if "loss" in metrics:
            self.experiment.rows[step] = metrics["loss"]
            self.unsaved.append(step)

    def save(self):
        self.written += len(self.unsaved)
        self.unsaved.clear()
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package that is not part of the script."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "forecasting.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(object_walk, "_LIBRARY_PATHS", (str(folder),))
    yield importlib.import_module("forecasting")
    del sys.modules["forecasting"]


def train_installed(package, folder, stop=None, logger=None):
    pl.seed_everything(2, verbose=False)
    data, module = TensorDataset(torch.randn(16, 4)), package.Forecaster()
    loader = DataLoader(data, 4, shuffle=True)
    options = {"logger": logger or False, "log_every_n_steps": 1}
    part = train_part(folder, module, loader, stop=stop, max_epochs=3, **options)
    return part, module


def test_attributes_of_an_installed_lightning_module_are_restored(tmp_path, installed):
    def train(folder, stop):
        part, module = train_installed(installed, folder, stop)
        return part, digest([module.state_dict(), module.losses])

    assert_continues_exactly(train, tmp_path, 6)


def test_values_that_a_logger_keeps_in_memory_are_restored(tmp_path, installed):
    def train(folder, stop):
        logger = installed.MemoryLogger()
        part, _ = train_installed(installed, folder, stop, logger)
        return part, digest(logger.experiment.rows)

    assert_continues_exactly(train, tmp_path, 6)


def test_rows_that_a_logger_has_written_are_not_restored(tmp_path, installed):
    first, second = installed.MemoryLogger(), installed.MemoryLogger()
    train_installed(installed, tmp_path, 6, first)
    train_installed(installed, tmp_path, None, second)
    assert (first.written, second.written + len(second.unsaved)) == (6, 6)
