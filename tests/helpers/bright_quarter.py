"""A LightningModule and a data module that ``lightning-green compress`` imports."""

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.helpers.compression_networks import SmallResNet


class Data(pl.LightningDataModule):
    """Noisy images; the class is the index of the bright quarter."""

    def __init__(self, size=256):
        super().__init__()
        self.size = size

    def _loader(self, seed):
        generator = torch.Generator().manual_seed(seed)
        y = torch.randint(0, 4, (self.size,), generator=generator)
        x = 0.5 * torch.randn(self.size, 3, 16, 16, generator=generator)
        for i, quarter in enumerate(y.tolist()):
            row, column = 8 * (quarter // 2), 8 * (quarter % 2)
            x[i, :, row : row + 8, column : column + 8] += 0.5
        return DataLoader(TensorDataset(x, y), 32)

    def train_dataloader(self):
        return self._loader(1)

    def test_dataloader(self):
        return self._loader(2)

    val_dataloader = test_dataloader


class Model(pl.LightningModule):
    def __init__(self, width=16):
        super().__init__()
        self.save_hyperparameters()
        self.network = SmallResNet(width)
        self.head = nn.Flatten()

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def test_step(self, batch, batch_idx):
        self.log("accuracy", (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


class ByName(Model):
    """Calls its network by keyword."""

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.network(x=batch[0]), batch[1])

    def test_step(self, batch, batch_idx):
        self.log("accuracy", (self.network(x=batch[0]).argmax(1) == batch[1]).float().mean())


class Heads(SmallResNet):
    """Returns a dictionary, with a loss if there are labels."""

    def forward(self, x, labels=None):
        logits = super().forward(x)
        output = {"logits": logits, "best": logits.amax(1)}
        return output if labels is None else {"loss": nn.functional.cross_entropy(logits, labels), **output}


class Dictionary(Model):
    """Has a network that returns a dictionary."""

    def __init__(self, width=16):
        super().__init__(width)
        self.network = Heads(width)

    def training_step(self, batch, batch_idx):
        return self.network(batch[0], batch[1])["loss"]

    def test_step(self, batch, batch_idx):
        self.log("accuracy", (self.network(batch[0])["logits"].argmax(1) == batch[1]).float().mean())


class Labeled(Dictionary):
    """Tests with the loss of the network."""

    def test_step(self, batch, batch_idx):
        self.log("loss", self.network(batch[0], batch[1])["loss"])
