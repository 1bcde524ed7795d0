"""Train a small student with a larger teacher, which computes each image only once.

pip install 'lightning-green[demo]'
python examples/distillation.py --epochs 6
"""

import argparse

import lightning.pytorch as pl
import torch
from digits import Digits, SmallCNN
from torch import nn

from lightning_green import KnowledgeDistillation


class Teacher(SmallCNN):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 2e-3)


class Student(Teacher):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))


def trainer(epochs, callbacks):
    return pl.Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=callbacks, logger=False, enable_checkpointing=False
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    pl.seed_everything(0)
    teacher, student = Teacher(), Student()
    trainer(arguments.epochs, []).fit(teacher, datamodule=Digits())
    distillation = KnowledgeDistillation(teacher.net, cache="memory")
    fit = trainer(arguments.epochs, [distillation])
    fit.fit(student, datamodule=Digits())
    print(f"accuracy {float(fit.validate(student, datamodule=Digits(), verbose=False)[0]['val/accuracy']):.3f}")
    print(f"computed {distillation.cache.misses} images, read {distillation.cache.hits} outputs from the cache")
