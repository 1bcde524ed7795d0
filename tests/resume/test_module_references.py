"""Objects that a module puts into its checkpoint are those of the resuming process."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanSquaredError, MetricCollection

from lightning_green.resume.errors import InexactStateError
from lightning_green.resume.load_check import check_loads
from lightning_green.resume.module_references import REFERENCE, ModuleReferences
from tests.helpers.interrupted_fits import assert_continues_exactly, train_part
from tests.helpers.resume_training import digest
from tests.helpers.trainers import BoringModel


class Scaler:
    """An object that plain data does not represent."""

    def __init__(self, scale):
        self.scale = scale


class Forecaster(pl.LightningModule):
    """Saves its loss, metrics and data parameters, as forecasting packages do for scripts that load a model."""

    def __init__(self):
        super().__init__()
        self.layer, self.loss = nn.Linear(4, 1), nn.HuberLoss()
        self.train_metrics = MetricCollection({"mse": MeanSquaredError()})
        self.data = {"target": "value", "scaler": Scaler(2.0)}
        self.extra = Scaler(1.0)

    def training_step(self, batch, batch_idx):
        found = self.layer(batch[0]) * self.data["scaler"].scale
        self.train_metrics.update(found, batch[1])
        self.log_dict(self.train_metrics, on_step=False, on_epoch=True)
        return self.loss(found, batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["loss"], checkpoint["metrics"] = self.loss, self.train_metrics
        checkpoint["data"], checkpoint["others"] = self.data, {"extra": self.extra, "number": 3}

    def on_load_checkpoint(self, checkpoint):
        self.loss, self.train_metrics = checkpoint["loss"], checkpoint["metrics"]
        self.data, self.extra = checkpoint["data"], checkpoint["others"]["extra"]


def saved(module):
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    return checkpoint


def train(folder, stop, make=Forecaster):
    pl.seed_everything(2, verbose=False)
    data = TensorDataset(torch.randn(16, 4), torch.randn(16, 1))
    module = make()
    part = train_part(folder, module, DataLoader(data, 4, shuffle=True), stop=stop, max_epochs=3)
    metrics = {name: float(value) for name, value in part.trainer.callback_metrics.items()}
    return part, [digest(module.state_dict()), None if stop else metrics]


@pytest.mark.parametrize("stop", [2, 4, 7])
def test_fit_that_saves_its_loss_and_metrics_continues_exactly(stop, tmp_path):
    assert_continues_exactly(train, tmp_path, stop)


class LateForecaster(Forecaster):
    """Fits its scaler to the first batch, and puts it into its checkpoint."""

    def training_step(self, batch, batch_idx):
        if not hasattr(self, "late"):
            self.late = Scaler(float(batch[0].std()))
        return super().training_step(batch, batch_idx)

    def on_save_checkpoint(self, checkpoint):
        super().on_save_checkpoint(checkpoint)
        if hasattr(self, "late"):
            checkpoint["late"] = self.late


def test_fit_whose_module_saves_an_object_of_the_fit_is_not_saved(tmp_path):
    """Another process does not have the object before it trains."""

    def run(folder, stop):
        return train(folder, stop, make=LateForecaster)[0].trained

    assert run(tmp_path, 2) < 12
    assert run(tmp_path, None) == 12


def begun(module):
    references = ModuleReferences(module)
    references.begin()
    return references


@pytest.mark.parametrize("before", [None, Scaler(1.0)])
def test_object_that_is_created_during_the_fit_is_not_referred_to(before):
    module = Forecaster()
    module.late = before
    references = begun(module)
    module.late = Scaler(2.0)
    checkpoint = {"late": module.late}
    references.replace(checkpoint)
    assert checkpoint == {"late": module.late}


def test_layer_that_is_replaced_during_the_fit_is_not_referred_to():
    module = Forecaster()
    references = begun(module)
    module.loss, module.train_metrics = nn.HuberLoss(delta=0.5), MeanSquaredError()
    checkpoint = saved(module)
    references.replace(checkpoint)
    assert checkpoint["loss"] is module.loss
    assert checkpoint["metrics"] is module.train_metrics


def test_object_of_two_names_is_referred_to_by_the_one_from_the_start():
    module = Forecaster()
    references = begun(module)
    module.alias = module.extra
    checkpoint = saved(module)
    references.replace(checkpoint)
    assert checkpoint["others"]["extra"] == {REFERENCE: "extra"}


def test_attributes_are_read_only_if_a_hook_adds_to_the_checkpoint():
    """They may be as large as the data."""

    class Large:
        def __getstate__(self):
            read.append(1)
            return {}

    read, module = [], BoringModel()
    module.large = Large()
    begun(module)
    assert read == []
    ModuleReferences(module).begin([pl.Callback(), Adds()])
    assert read == [1]


class Adds(pl.Callback):
    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["large"] = pl_module.large


def test_attributes_are_saved_by_name_and_replaced_by_the_objects_of_the_process():
    checkpoint, other = saved(module := Forecaster()), Forecaster()
    begun(module).replace(checkpoint)
    assert checkpoint["metrics"] == {REFERENCE: "train_metrics"}
    assert checkpoint["others"] == {"extra": {REFERENCE: "extra"}, "number": 3}
    check_loads(checkpoint)
    ModuleReferences(other).resolve(checkpoint)
    assert checkpoint["loss"] is other.loss
    assert checkpoint["data"] is other.data
    assert checkpoint["others"]["extra"] is other.extra
    assert module.data["scaler"].scale == 2.0


def test_object_that_changes_during_the_fit_is_not_referred_to():
    module = Forecaster()
    references, before, after = begun(module), saved(module), saved(module)
    references.replace(before)
    module.extra.scale = 5.0
    references.replace(after)
    assert before["others"]["extra"] == {REFERENCE: "extra"}
    assert after["others"]["extra"] is module.extra


def test_object_that_is_no_attribute_is_left_as_it_is():
    module, other = Forecaster(), Scaler(1.0)
    checkpoint = {"other": other}
    begun(module).replace(checkpoint)
    assert checkpoint == {"other": other}


def test_missing_attribute_is_an_error():
    with pytest.raises(InexactStateError, match="`gone` of Forecaster, which does not exist"):
        ModuleReferences(Forecaster()).resolve({"other": {REFERENCE: "gone"}})
