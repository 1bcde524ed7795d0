"""Several fits in one script: after a kill or a pause, each fold has the score of an uninterrupted run.

lightning-green run -- python examples/k_fold.py   # Ctrl-C, kill -9; then the same line again

Finished folds are restored instead of trained again: the script reads the same `callback_metrics` and best checkpoint
as right after the fit.
"""

import sys

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_green import EmissionsTracker, ExactResume

FOLDS = 3


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_accuracy", (self.net(x).argmax(1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


if __name__ == "__main__":
    pl.seed_everything(0)
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    x = torch.randn(600, 8)
    samples = TensorDataset(x, (x[:, 0] * x[:, 1] > 0).long())
    scores = []
    for fold in range(FOLDS):
        validation = [index for index in range(len(samples)) if index % FOLDS == fold]
        training = [index for index in range(len(samples)) if index % FOLDS != fold]
        best = ModelCheckpoint(f"k_fold/{fold}", monitor="val_accuracy", mode="max")
        trainer = pl.Trainer(
            max_epochs=epochs,
            callbacks=[best, EmissionsTracker(), ExactResume(every="5s")],
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
        )
        trainer.fit(
            Classifier(),
            DataLoader(Subset(samples, training), batch_size=16, shuffle=True),
            DataLoader(Subset(samples, validation), batch_size=200),
        )
        scores.append(float(best.best_model_score))
    print("accuracy of each fold:", " ".join(f"{score:.4f}" for score in scores))
