"""An ordinary Lightning script: a small CNN on handwritten digits. The demo runs it; so can you.

python examples/digits.py --deadline 36h
lightning-green run -- python examples/digits.py --deadline 36h
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import WandbLogger
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.functional import accuracy

from lightning_green import CarbonScheduler, EmissionsTracker


class Digits(pl.LightningDataModule):
    """The 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn."""

    def setup(self, stage: str) -> None:
        images, labels = load_digits(return_X_y=True)
        images = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16.0
        split = train_test_split(images, torch.tensor(labels), test_size=0.2, random_state=0, stratify=labels)
        self.train, self.test = TensorDataset(split[0], split[2]), TensorDataset(split[1], split[3])

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, batch_size=64, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.test, batch_size=360)


class SmallCNN(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.3),
            nn.Flatten(), nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10),
        )  # fmt: skip

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self.net(images), labels)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        self.log("val/accuracy", accuracy(self.net(images), labels, task="multiclass", num_classes=10))

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.trainer.max_epochs)
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/digits"), help="folder for the logs and the result")
    parser.add_argument("--deadline", help="such as 36h; without it the training runs now")
    parser.add_argument("--meter", default="auto", help='"auto" measures with codecarbon; a number is a power in watts')
    parser.add_argument("--grid", default="typical:DE", help="carbon intensity, such as typical:DE or a trace.csv")
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()

    pl.seed_everything(7)
    torch.set_num_threads(1)  # a model this small does not gain by more
    arguments.out.mkdir(parents=True, exist_ok=True)
    tracker = EmissionsTracker(meter=arguments.meter, grid=arguments.grid)
    scheduler = CarbonScheduler(deadline=arguments.deadline, hold_power=0.25, resume_cost=0.1)
    trainer = pl.Trainer(
        max_epochs=arguments.epochs,
        accelerator="cpu",
        callbacks=[tracker, scheduler],
        logger=WandbLogger(project="digits", offline=True, save_dir=arguments.out),
        default_root_dir=arguments.out,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = SmallCNN()
    trainer.fit(model, Digits())

    weights = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        weights.update(name.encode() + tensor.numpy().tobytes())
    result = {
        "accuracy": trainer.callback_metrics["val/accuracy"].item(),
        "steps": trainer.global_step,
        "weights_sha256": weights.hexdigest(),
        "totals": tracker.summary(),
    }
    (arguments.out / "result.json").write_text(json.dumps(result, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
