"""Train with a live grid: the best available source for your place, and its fallbacks.

python examples/live_grid.py --zone DE                 # no key needed in Europe
ELECTRICITYMAPS_API_TOKEN=... python examples/live_grid.py --zone US-CAL-CISO
lightning-green run -- python examples/live_grid.py --zone GB --deadline 36h
"""

import argparse

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import CarbonScheduler, EmissionsTracker


class Line(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.mse_loss(self.layer(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--zone", help="zone such as DE, US-CAL-CISO or 52.5,13.4; default: LIGHTNING_GREEN_ZONE")
    parser.add_argument("--source", default="auto", help="such as auto, electricity-maps, neso or file:/shared/de.csv")
    parser.add_argument("--deadline", help="deadline such as 36h; without one, the training runs now and is metered")
    arguments = parser.parse_args()

    pl.seed_everything(0)
    x = torch.linspace(-1, 1, 256).unsqueeze(1)
    data = DataLoader(TensorDataset(x, 2 * x + 1), batch_size=16, shuffle=True)
    tracker = EmissionsTracker(grid=arguments.source, zone=arguments.zone)
    trainer = pl.Trainer(
        max_epochs=5,
        callbacks=[tracker, CarbonScheduler(deadline=arguments.deadline)],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
    )
    model = Line()
    trainer.fit(model, data)
    print(f"y = {model.layer.weight.item():.2f} x + {model.layer.bias.item():.2f}")
    print({name: value for name, value in tracker.summary().items() if name.startswith("carbon/")})
