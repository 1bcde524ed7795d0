"""A sweep with a budget that its trials share: it ends when the budget is used.

    python examples/budget.py                   # 2 Wh for all trials together
    python examples/budget.py --kwh 0.005       # continues the sweep with a higher limit
    lightning-green budget sweep_budget         # what each trial has used

Trials may also be processes of their own, on several machines, that name the same directory.
With a simulated clock, a batch takes 10 minutes and the sweep seconds:

    LIGHTNING_GREEN_CLOCK=simulated:start=2024-05-02T16:00:00Z,batch=600 python examples/budget.py --kwh 2 --watts 300
"""

import argparse

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import EnergyBudget
from lightning_green.budget import BudgetDirectory, Limits, read_budget


class Spirals(pl.LightningModule):
    def __init__(self, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))

    def training_step(self, batch, batch_idx):
        points, arm = batch
        return nn.functional.cross_entropy(self.net(points), arm)

    def validation_step(self, batch, batch_idx):
        points, arm = batch
        self.log("accuracy", (self.net(points).argmax(1) == arm).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.hparams.lr)


def spirals(count, seed):
    random = torch.Generator().manual_seed(seed)
    arm = torch.arange(count) % 2
    turn = torch.rand(count, generator=random) * 2.5 + 0.5
    angle = turn * 3.0 + arm * torch.pi
    return TensorDataset(torch.stack([turn * angle.cos(), turn * angle.sin()], 1), arm)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kwh", type=float, default=0.002)
    parser.add_argument("--directory", default="sweep_budget")
    parser.add_argument("--watts", default="auto", help="power of the job in W, if there is no sensor")
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()

    BudgetDirectory(arguments.directory).set_limits(Limits(kwh=arguments.kwh))
    found = {}
    for trial, lr in enumerate([0.001, 0.003, 0.01, 0.03, 0.1]):
        if read_budget(arguments.directory).is_used:
            break
        pl.seed_everything(trial, verbose=False)
        trainer = pl.Trainer(
            max_epochs=arguments.epochs,
            callbacks=[EnergyBudget(directory=arguments.directory, check_every="1s", meter=arguments.watts)],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        trainer.fit(Spirals(lr), DataLoader(spirals(1024, 0), 64, shuffle=True), DataLoader(spirals(256, 1), 256))
        found[lr] = trainer.callback_metrics["accuracy"].item()
        print(f"trial {trial}: lr {lr}, {trainer.global_step} steps, accuracy {found[lr]:.2f}")
    print(read_budget(arguments.directory))
    if found:
        print(f"best: lr {max(found, key=found.__getitem__)}")
