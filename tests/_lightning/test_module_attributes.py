import lightning.pytorch as pl
import pytest
import torch

from lightning_green._lightning.module_attributes import attributes_of
from tests.helpers.trainers import BoringModel, quiet_trainer


class Data(pl.LightningDataModule):
    def __init__(self):
        super().__init__()
        self.save_hyperparameters()


class Net(BoringModel):
    def __init__(self, width=3):
        super().__init__()
        self.save_hyperparameters()


def test_all_attributes_of_a_module_in_a_fit_are_those_of_lightning(tmp_path):
    model = Net()
    quiet_trainer(tmp_path).fit(model)
    assert set(vars(model)) <= attributes_of(pl.LightningModule)


@pytest.mark.parametrize(("kind", "instance"), [(torch.nn.Module, torch.nn.ReLU), (pl.LightningDataModule, Data)])
def test_attributes_of_other_classes(kind, instance):
    assert set(vars(instance())) - {"inplace"} <= attributes_of(kind)
