"""Two processes that train together: all pause at the same batch, and their energy is added up.

python examples/ddp.py --devices 2                        # two processes, started by Lightning
torchrun --standalone --nproc-per-node 2 examples/ddp.py --devices 2
lightning-green run -- python examples/ddp.py --devices 2 --deadline 12h
python examples/ddp.py --devices 2 --strategy ddp_green     # gradients in 16 bits
"""

import argparse

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import CarbonScheduler, EmissionsTracker


class Regression(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.mse_loss(self.net(x), y)
        self.log("loss", loss, sync_dist=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--strategy", default="ddp", choices=["ddp", "ddp_green", "ddp_green_low_rank"])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--grid", default="typical:DE")
    parser.add_argument("--deadline", default=None, help="such as 12h; without one the run does not wait")
    arguments = parser.parse_args()

    pl.seed_everything(0)
    x = torch.randn(1024, 8)
    data = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 32, shuffle=True)  # Lightning adds the sampler
    tracker = EmissionsTracker(grid=arguments.grid)
    trainer = pl.Trainer(
        max_epochs=arguments.epochs,
        accelerator=arguments.accelerator,
        devices=arguments.devices,
        strategy=arguments.strategy,
        callbacks=[tracker, CarbonScheduler(deadline=arguments.deadline)],
        logger=False,
        enable_progress_bar=False,
    )
    model = Regression()
    trainer.fit(model, data)
    if trainer.is_global_zero:
        print(f"loss {trainer.callback_metrics['loss']:.4f}, {trainer.global_step} steps on {trainer.world_size} ranks")
