"""One W&B run over every restart, without a network; the line that uploads it is printed at the end.

    lightning-green run -- python examples/wandb_offline.py

Stop it with Ctrl-C and start the same line again: the new part is written for the same W&B run. Needs
``pip install 'lightning-green[wandb]'``.
"""

import argparse
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import WandbLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import CarbonScheduler, EmissionsTracker


class Spirals(pl.LightningModule):
    """Distinguishes two spirals."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))

    def training_step(self, batch, batch_idx):
        points, labels = batch
        loss = nn.functional.binary_cross_entropy_with_logits(self.net(points), labels)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def spirals(points: int = 512) -> TensorDataset:
    turn = torch.linspace(0.5, 3 * torch.pi, points)
    arm = torch.stack([turn * turn.cos(), turn * turn.sin()], dim=1) / 10
    return TensorDataset(torch.cat([arm, -arm]), torch.cat([torch.zeros(points, 1), torch.ones(points, 1)]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/wandb_offline"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--deadline", default="36h")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(0)
    trainer = pl.Trainer(
        max_epochs=arguments.epochs,
        callbacks=[EmissionsTracker(grid="typical:DE"), CarbonScheduler(deadline=arguments.deadline)],
        logger=WandbLogger(project="spirals", offline=True, save_dir=arguments.out),
        default_root_dir=arguments.out,
        accelerator="cpu",
        log_every_n_steps=4,
        enable_progress_bar=False,
    )
    trainer.fit(Spirals(), DataLoader(spirals(), batch_size=64, shuffle=True))
