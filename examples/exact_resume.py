"""Exact resume: interrupt this script at any time and in any way; its last line stays the same.

lightning-green run -- python examples/exact_resume.py   # Ctrl-C, kill -9, a power cut; then the same line again
"""

import hashlib
import sys

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_green import ExactResume


class NoisySines(Dataset):
    """Samples with random augmentation, which an exact resume has to repeat."""

    def __len__(self):
        return 512

    def __getitem__(self, index):
        x = torch.tensor([index / 512.0])
        return x + 0.01 * torch.randn(1), torch.sin(6.28 * x)


class Sine(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Dropout(0.05), nn.Linear(32, 1))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.mse_loss(self.net(x), y)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters())
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=int(steps))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


if __name__ == "__main__":
    pl.seed_everything(0)
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=[ExactResume(every="5s")],  # a kill loses at most five seconds of work; a signal loses none
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
    )
    model = Sine()
    trainer.fit(model, DataLoader(NoisySines(), batch_size=16, shuffle=True))
    weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    print(f"weights: {hashlib.sha256(weights).hexdigest()[:16]}")
