"""An ordinary script with everything in one Trainer: masks, rounding, a teacher, fp16, the tracker and the scheduler.

python everything_job.py FOLDER

As in ``main_job.py`` the environment holds what a user's own arguments would, here RANKS, PAUSE, GRID and
LIGHTNING, and ``FOLDER/gates`` where it waits. What a rank writes goes to a file of its own.
"""

import hashlib
import importlib
import json
import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_green import (
    CarbonScheduler,
    EmissionsTracker,
    GreenMixedPrecision,
    KnowledgeDistillation,
    Pruning,
    QuantizationAwareTraining,
)
from tests.helpers.compression_fits import Net, loader
from tests.helpers.gates import gate

pl = importlib.import_module(os.environ.get("LIGHTNING", "lightning.pytorch"))
FOLDER, RANKS = Path(sys.argv[1]), int(os.environ["RANKS"])
RANK = int(os.environ.get("LOCAL_RANK", "0"))  # Lightning starts the script again for the second
EPOCHS, BATCHES = 4, 12
OVERFLOWS = (5, 33)  # the first before the pause, the second after it


class Lit(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def training_step(self, batch, batch_idx):
        number = BATCHES * self.current_epoch + batch_idx
        with open(FOLDER / f"batches-{RANK}", "a") as batches:
            batches.write(json.dumps([number, batch[1].tolist(), batch[0].double().sum().item()]) + "\n")
        gate(FOLDER, f"batch-{number}")
        loss = nn.functional.cross_entropy(self.net(batch[0]).float(), batch[1])
        return loss * 1e38 if number in OVERFLOWS and RANK == RANKS - 1 else loss  # one rank's is that of all

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 1e-2, fused=True)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.97)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class Rates(pl.Callback):
    """Writes the learning rate and the loss scale of each batch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        row = [
            BATCHES * trainer.current_epoch + batch_idx,
            trainer.optimizers[0].param_groups[0]["lr"],
            trainer.precision_plugin.scaler.get_scale(),
            trainer.precision_plugin.skipped_steps,
        ]
        with open(FOLDER / f"rates-{RANK}", "a") as rates:
            rates.write(json.dumps(row) + "\n")


def teacher():
    generator = torch.random.get_rng_state()
    torch.manual_seed(3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16), nn.ReLU(), nn.Linear(16, 4))
    torch.random.set_rng_state(generator)
    return network


def digest(state):
    """Return the hash of every tensor and number in a nested state."""
    total = hashlib.sha256()
    for leaf in torch.utils._pytree.tree_leaves(state):
        total.update(leaf.detach().numpy().tobytes() if isinstance(leaf, torch.Tensor) else repr(leaf).encode())
    return total.hexdigest()


def main():
    with open(FOLDER / f"starts-{RANK}", "a") as starts:
        starts.write(f"{os.getpid()}\n")
    pl.seed_everything(1)
    torch.set_num_threads(1)
    plugin = GreenMixedPrecision("fp16", keep_fp32=["net.fc"], init_scale=1024.0, growth_interval=5)
    pruning = Pruning(0.6, end=0.7, every_n_steps=2, scope="layer")
    rounding = QuantizationAwareTraining(begin=0.4, freeze=0.9)
    tracker = EmissionsTracker(meter=300.0, grid=os.environ["GRID"])
    scheduler = CarbonScheduler(deadline="40h", on_pause=os.environ["PAUSE"], hold_power=0.3, resume_cost=0.1)
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        devices=RANKS,
        strategy="auto" if RANKS == 1 else "ddp",
        callbacks=[tracker, KnowledgeDistillation(teacher(), cache="memory"), Rates(), rounding, pruning, scheduler],
        plugins=[plugin],
        accumulate_grad_batches=2,
        gradient_clip_val=0.5,
        logger=False,
        default_root_dir=FOLDER,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module, data = Lit(), loader(size=4 * BATCHES).dataset
    trainer.fit(module, DataLoader(data, batch_size=4 // RANKS, shuffle=True))

    masks = pruning.method.pruner.masked.masks
    integers = rounding.convert(module).state_dict()
    layers = {"conv2d": "net.stem", "conv2d_1": "net.block.conv1", "conv2d_2": "net.block.conv2", "linear": "net.fc"}
    dropped = {theirs: masks[f"{ours}.weight"] == 0 for theirs, ours in layers.items()}
    result = {
        "weights": digest(module.state_dict()),
        "parameters": digest(dict(module.named_parameters())),
        "optimizer": digest(trainer.optimizers[0].state_dict()),
        "masks": digest(masks),
        "scaler": plugin.scaler.state_dict(),
        "skipped": plugin.skipped_steps,
        "int8": digest(integers),
        "integers": {name: integers[f"{name}_weight"].numel() for name in dropped},
        "dropped": {name: int(mask.sum()) for name, mask in dropped.items()},
        "dropped_and_not_zero": {
            name: int((integers[f"{name}_weight"][mask] != 0).sum()) for name, mask in dropped.items()
        },
        "totals": tracker.summary(),
    }
    (FOLDER / f"result-{RANK}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
