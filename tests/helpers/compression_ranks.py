"""Fit callbacks on one process or on two, on the same data, and save the final state of each rank.

``python compression_ranks.py CALLBACK,... PROCESSES FOLDER``
"""

import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from lightning_green.callbacks.distillation import KnowledgeDistillation
from lightning_green.callbacks.emissions_tracker import EmissionsTracker
from lightning_green.callbacks.pruning import Pruning
from lightning_green.callbacks.quantization import QuantizationAwareTraining


class Lit(pl.LightningModule):
    """A network without batch norm, so that the gradients of two half batches average to that of the whole batch."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def train_dataloader(self):
        x = torch.randn(96, 12, generator=torch.Generator().manual_seed(1))
        data, ranks = TensorDataset(x, x[:, :4].argmax(1)), self.trainer.world_size
        # Not shuffled: the sixteen samples of a step are the same, with two ranks every other one on each.
        return DataLoader(data, 16 // ranks, sampler=DistributedSampler(data, ranks, self.trainer.global_rank, False))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)


class Whole(Lit):
    """The same network, with its layers directly in the LightningModule."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = self.net[0], self.net[2], self.net[4]
        del self.net

    def forward(self, x):
        return self.third(self.second(self.first(x).relu()).relu())

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


def teacher():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 4))


CALLBACKS = {
    "magnitude": lambda: Pruning(0.7),
    "random": lambda: Pruning(0.7, criterion="random"),
    "rigl": lambda: Pruning(0.7, criterion="rigl", every_n_steps=3),
    "quantized": lambda: QuantizationAwareTraining(begin=0.3, freeze=0.9),
    "distilled": lambda: KnowledgeDistillation(teacher(), {"hint": 1.0, "standardized": 1.0}, layers={"1": "1"}),
    "whole": lambda: QuantizationAwareTraining(begin=0.3, freeze=0.9, model=""),
    "distilled_whole": lambda: KnowledgeDistillation(teacher(), model=""),
    "cached": lambda: KnowledgeDistillation(teacher(), cache="memory"),
    "2:4": lambda: Pruning(granularity="2:4", criterion="gradient"),
}


def main(name, processes, folder):
    torch.manual_seed(0)
    module, callback = Whole() if "whole" in name else Lit(), CALLBACKS[name]()
    trainer = pl.Trainer(
        accelerator="cpu",
        strategy="ddp" if processes > 1 else "auto",
        devices=processes,
        max_epochs=2,
        callbacks=[callback, EmissionsTracker(meter=100.0)] if name == "cached" else [callback],
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module)
    end = {"weights": module.state_dict(), "callback": callback.state_dict()}
    if name == "cached":
        end["saved"] = callback.saved_seconds()
        end["logged"] = {key: float(value) for key, value in trainer.callback_metrics.items()}
    torch.save(end, Path(folder) / f"{name}-{processes}-{trainer.global_rank}.pt")


if __name__ == "__main__":
    for chosen in sys.argv[1].split(","):
        main(chosen, int(sys.argv[2]), sys.argv[3])
