"""Accuracy on Fashion-MNIST after training in each precision."""

from __future__ import annotations

import statistics
import sys
from typing import Any

import lightning.pytorch as pl
import torch
from compression_models import SmallResNet
from precision_cases import trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_green import GreenMixedPrecision


class Classifier(pl.LightningModule):
    """A classifier of Fashion-MNIST with a one-cycle learning rate."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.network: nn.Module = SmallResNet(16, 1, channels=1)
        if device == "cpu":  # convolutions in an emulated format take hours
            sizes = ((784, 128), (128, 64))
            hidden = [m for i, o in sizes for m in (nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU())]
            self.network = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss."""
        return nn.functional.cross_entropy(self.network(batch[0]).float(), batch[1])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the accuracy in points."""
        self.log("accuracy", 100.0 * (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        """Return a fused AdamW and its schedule."""
        optimizer = torch.optim.AdamW(self.parameters(), 3e-3, fused=True)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def accuracy(data: tuple[Tensor, ...], seeds: int, epochs: int, device: str) -> dict[str, Any]:
    """Return the accuracy of each precision and seed, and the mean differences to float32."""
    x, y, x_test, y_test = data
    found: dict[str, list[float]] = {"fp32": [], "bf16": [], "fp16": []}
    skipped = dict.fromkeys(found, 0)
    for seed in range(seeds):
        for dtype, accuracies in found.items():
            pl.seed_everything(seed)
            plugin = GreenMixedPrecision(dtype)
            fit = trainer(plugin, device, max_epochs=epochs, gradient_clip_val=1.0)
            module = Classifier(device)
            loader = DataLoader(range(len(y)), 250, shuffle=True, collate_fn=lambda rows: (x[rows], y[rows]))
            fit.fit(module, loader)
            tested = DataLoader(range(len(y_test)), 1000, collate_fn=lambda rows: (x_test[rows], y_test[rows]))
            accuracies.append(round(fit.test(module, tested, verbose=False)[0]["accuracy"], 3))
            skipped[dtype] += plugin.skipped_steps
            print(f"{dtype}, seed {seed}: {accuracies[-1]} %", file=sys.stderr)
    result: dict[str, Any] = {"images": len(y), "epochs": epochs, "seeds": seeds, "points": found, "skipped": skipped}
    for dtype in ("bf16", "fp16"):
        differences = [a - b for a, b in zip(found[dtype], found["fp32"], strict=True)]
        result[f"{dtype}_minus_fp32_points"] = round(statistics.mean(differences), 3)
        result[f"{dtype}_minus_fp32_points_of_each_seed"] = [round(value, 3) for value in differences]
    return result
