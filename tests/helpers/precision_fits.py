"""Small models with data, and fits on the CPU that print nothing."""

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, 0.01),
    "adamw-fused": lambda p: torch.optim.AdamW(p, 0.01, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    "sgd-fused": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, fused=True),
}


class Lit(pl.LightningModule):
    """A classifier.

    Args:
        optimizer: Key of ``OPTIMIZERS``.
        overflow: Indices of batches whose loss is multiplied by 1e38, so that the loss is finite and its gradients not.
        schedule: Whether to halve the learning rate at each step of a scheduler.
        frequency: Frequency of the scheduler in optimizer steps.

    """

    def __init__(self, optimizer="adamw", overflow=(), schedule=False, frequency=1):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU())
        self.head = nn.Linear(16, 4)
        self.optimizer, self.overflow, self.schedule, self.frequency = optimizer, set(overflow), schedule, frequency
        self.rates = []

    def forward(self, x):
        return self.head(self.body(x))

    def loss(self, batch):
        return nn.functional.cross_entropy(self(batch[0]).float(), batch[1])

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        return loss * 1e38 if batch_idx in self.overflow else loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    def test_step(self, batch, batch_idx):
        self.log("loss", self.loss(batch))

    def predict_step(self, batch, batch_idx):
        return self(batch[0])

    def train_dataloader(self, length=96):
        x = torch.randn(length, 8, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(x, x[:, :4].argmax(1)), batch_size=8)

    test_dataloader = predict_dataloader = train_dataloader

    def configure_optimizers(self):
        optimizer = OPTIMIZERS[self.optimizer](self.parameters())
        if not self.schedule:
            return optimizer
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "frequency": self.frequency},
        }


class Manual(Lit):
    """Manual optimization: two optimizers share a backward pass, then the first one steps again."""

    def __init__(self, overflow=()):
        super().__init__("sgd", overflow)
        self.automatic_optimization = False
        self.scales = []

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        first.zero_grad()
        second.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(first, 0.05, "norm")
        first.step()
        second.step()
        first.zero_grad()
        self.manual_backward(self.loss(batch))
        first.step()
        if self.trainer.precision_plugin.scaler is not None:
            self.scales.append(self.trainer.precision_plugin.scaler.get_scale())

    def configure_optimizers(self):
        body, head = self.body.parameters(), self.head.parameters()
        return torch.optim.SGD(body, 0.05), torch.optim.SGD([*head, nn.Parameter(torch.zeros(1))], 0.05)


def trainer(plugin=None, **kwargs):
    """Return a Trainer for one epoch with the precision plugin ``plugin``."""
    defaults = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "plugins": [] if plugin is None else [plugin],
    }
    return pl.Trainer(**{**defaults, **kwargs})


def fit(plugin, module=None, ckpt_path=None, **kwargs):
    """Train ``module`` (default: a new ``Lit``); return it and the Trainer."""
    module = Lit() if module is None else module
    fit_trainer = trainer(plugin, **kwargs)
    fit_trainer.fit(module, ckpt_path=ckpt_path)
    return module, fit_trainer


def distance(a, b):
    """Return the largest absolute difference between the weights of two models."""
    return max(
        (x.double() - y.double()).abs().max().item() for x, y in zip(a.parameters(), b.parameters(), strict=True)
    )
