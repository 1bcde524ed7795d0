"""Training at lower power, if that saves emissions.

    python examples/throttle.py                                         # measure the levels (requires root)
    python examples/throttle.py --levels 0.78:0.90                      # a known level: 78 % power at 90 % speed
    python examples/throttle.py --levels 0.78:0.90 0.6:0.7 --price 60   # an hour of delay costs 60 gCO2e

With a simulated clock the training takes seconds, with 15 minutes per batch, and no device is changed:

    LIGHTNING_GREEN_CLOCK=simulated:start=2024-05-02T16:00:00Z,batch=900 python examples/throttle.py --levels 0.78:0.90
"""

import argparse

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import CarbonScheduler, EmissionsTracker


class Spirals(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))

    def training_step(self, batch, batch_idx):
        points, arm = batch
        scores = self.net(points)
        self.log("train/accuracy", (scores.argmax(1) == arm).float().mean(), on_step=False, on_epoch=True)
        return nn.functional.cross_entropy(scores, arm)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def spirals(count=1024):
    arm = torch.arange(count) % 2
    turn = torch.rand(count) * 2.5 + 0.5
    angle = turn * 3.0 + arm * torch.pi
    return TensorDataset(torch.stack([turn * angle.cos(), turn * angle.sin()], 1), arm)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--levels", nargs="*", help="power:speed, as fractions of full; default: measured")
    parser.add_argument("--price", type=float, default=0.0, help="price of an hour of delay, in gCO2e")
    parser.add_argument("--grid", default="typical:DE")
    parser.add_argument("--watts", default="auto", help="power of the job in W, if there is no sensor")
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()

    pl.seed_everything(0)
    tracker = EmissionsTracker(grid=arguments.grid, meter=arguments.watts)
    scheduler = CarbonScheduler(
        deadline="3d",
        on_pause="hold",
        throttle=arguments.levels or "auto",
        max_slowdown=1.15,  # for measured levels
        delay_price=arguments.price,
    )
    trainer = pl.Trainer(
        max_epochs=arguments.epochs,
        callbacks=[tracker, scheduler],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
    )
    trainer.fit(Spirals(), DataLoader(spirals(), batch_size=64, shuffle=True))
    totals = tracker.summary()
    print(f"accuracy: {trainer.callback_metrics['train/accuracy'].item():.2f}")
    print(f"emitted: {totals['carbon/gco2e']:.4g} gCO2e, run now: {totals['carbon/counterfactual_gco2e']:.4g} gCO2e")
