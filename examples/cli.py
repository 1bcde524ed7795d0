"""LightningCLI, with the green callbacks in its YAML.

    python examples/cli.py fit --config examples/cli.yaml
    lightning-green run -- python examples/cli.py fit --config examples/cli.yaml

Needs ``pip install 'lightning-green[cli]'``.
"""

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Polynomial(pl.LightningModule):
    """Fits a polynomial to a sine.

    Args:
        degree: Degree of the polynomial.
        lr: Learning rate.

    """

    def __init__(self, degree: int = 5, lr: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(degree, 1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        powers = torch.cat([x**n for n in range(1, self.hparams.degree + 1)], dim=1)
        return nn.functional.mse_loss(self.layer(powers), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class Sine(pl.LightningDataModule):
    """Points of a sine.

    Args:
        points: How many.
        batch_size: Points a batch.

    """

    def __init__(self, points: int = 512, batch_size: int = 32) -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self):
        x = torch.linspace(-2, 2, self.hparams.points).unsqueeze(1)
        return DataLoader(TensorDataset(x, torch.sin(x)), batch_size=self.hparams.batch_size, shuffle=True)


if __name__ == "__main__":
    LightningCLI(Polynomial, Sine, save_config_kwargs={"overwrite": True})
