"""An ordinary script with the two callbacks. The tests start it; it knows nothing of them but where to stop and wait.

python main_job.py FOLDER

The environment holds what a user's own arguments would: PAUSE (``on_pause``), GRID, DEADLINE, METER, and LIGHTNING, the
package whose Trainer is used: ``lightning.pytorch`` (default) or ``pytorch_lightning``. ``FOLDER/gates`` holds where
the process waits: a file ``start-2`` for its second start, a file ``step-20`` for that step. It creates a file of the
same name with ``.here``, and continues once the first file is gone.
"""

import hashlib
import importlib
import json
import os
import sys
from pathlib import Path

from tests.helpers.gates import gate

FOLDER = Path(sys.argv[1])
FOLDER.mkdir(parents=True, exist_ok=True)

with open(FOLDER / "starts", "a") as starts:
    starts.write(f"{os.getpid()}\n")
gate(FOLDER, f"start-{len((FOLDER / 'starts').read_text().split())}")

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from lightning_green import CarbonScheduler, EmissionsTracker  # noqa: E402

pl = importlib.import_module(os.environ.get("LIGHTNING", "lightning.pytorch"))


class Samples(Dataset):
    """48 samples, a little different each time they are looked at."""

    def __init__(self):
        self.x = torch.randn(48, 8, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return index, self.x[index] + 0.1 * torch.randn(8)


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 1))

    def training_step(self, batch, batch_idx):
        indices, x = batch
        with open(FOLDER / "steps", "a") as steps:
            steps.write(json.dumps([self.trainer.global_step, self.current_epoch, batch_idx, indices.tolist()]) + "\n")
        gate(FOLDER, f"step-{self.trainer.global_step}")
        loss = self.net(x).pow(2).mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.net(batch[1]).pow(2).mean())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 1e-2)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


def main():
    pl.seed_everything(1)
    torch.set_num_threads(1)
    grid = os.environ.get("GRID", "typical:DE")
    tracker = EmissionsTracker(meter=float(os.environ.get("METER", "300")), grid=grid)
    scheduler = CarbonScheduler(
        deadline=os.environ.get("DEADLINE"), on_pause=os.environ.get("PAUSE", "auto"), hold_power=0.3, resume_cost=0.1
    )
    trainer = pl.Trainer(
        max_epochs=4,
        accelerator="cpu",
        callbacks=[tracker, scheduler],
        logger=[
            pl.loggers.CSVLogger(FOLDER, name="csv"),
            pl.loggers.WandbLogger(project="tests", offline=True, save_dir=FOLDER),
        ],
        default_root_dir=FOLDER,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model, samples = Net(), Samples()
    trainer.fit(model, DataLoader(samples, batch_size=4, shuffle=True), DataLoader(samples, batch_size=24))
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    result = {"weights": digest.hexdigest(), "steps": trainer.global_step, "totals": tracker.summary()}
    (FOLDER / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
