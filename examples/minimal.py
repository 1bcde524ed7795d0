"""An ordinary Lightning script, and the two lines that make it green.

python examples/minimal.py                          # meters, and holds where that pays
lightning-green run -- python examples/minimal.py   # and leaves and comes back where that pays more
"""

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
    pl.seed_everything(0)
    x = torch.linspace(-1, 1, 256).unsqueeze(1)
    data = DataLoader(TensorDataset(x, 2 * x + 1), batch_size=16, shuffle=True)
    green = [
        EmissionsTracker(grid="typical:DE"),  # 1. measures; prices the energy by the grid's intensity at that time
        CarbonScheduler(deadline="36h"),  # 2. waits for clean electricity where that pays; done within 36 hours
    ]
    trainer = pl.Trainer(max_epochs=5, callbacks=green, accelerator="cpu", logger=False, enable_progress_bar=False)
    model = Line()
    trainer.fit(model, data)
    print(f"y = {model.layer.weight.item():.2f} x + {model.layer.bias.item():.2f}")
