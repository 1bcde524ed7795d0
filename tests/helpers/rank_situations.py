"""A small training on two ranks in which a test lets something happen.

python rank_situations.py FOLDER STRATEGY

DO is what happens and where: ``SIGSTOP@5:1`` sends that signal to rank 1 in its step 5, ``raise@5:0`` raises there.
FITS is the number of fits, FIT the one in which it happens. CALLBACKS_ON is the rank that has the callback; without it
all have. SLOW is the step from which steps take SECONDS. LOGGER=wandb logs with W&B. Rank 0 writes its weights.
"""

import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import ExactResume

FOLDER, STRATEGY = Path(sys.argv[1]), sys.argv[2]
WHAT, _, WHERE = os.environ.get("DO", "").partition("@")
STEP, _, RANK = WHERE.partition(":")


class Model(pl.LightningModule):
    def __init__(self, fit):
        super().__init__()
        self.fit = fit
        torch.manual_seed(fit)
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        step, due = self.global_step, FOLDER / f"done-{self.fit}"
        if "SLOW" in os.environ and step >= int(os.environ["SLOW"]):
            time.sleep(float(os.environ["SECONDS"]))
        if WHAT and self.fit == int(os.environ.get("FIT", "0")) and not due.exists():
            self.do(step, due)
        loss = self.layer(batch[0] + 0.1 * torch.rand(4)).square().mean()
        self.log("loss", loss)
        return loss

    def do(self, step, due):
        if step != int(STEP) or self.global_rank != int(RANK):
            return
        due.touch()
        (FOLDER / "pids").write_text(f"{os.getpid()} {os.getppid()}")
        (FOLDER / "at").write_text(str(time.time()))
        if WHAT == "raise":
            raise ValueError("of the user's own")
        os.kill(os.getpid(), getattr(signal, WHAT))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)

    def on_train_end(self):
        if self.global_rank == 0:
            weights = self.layer.weight.detach().clone().flatten().tolist()
            (FOLDER / f"fit{self.fit}.json").write_text(json.dumps([self.global_step, weights]))


def main():
    timeout = timedelta(seconds=float(os.environ.get("TIMEOUT", "300")))
    method = {"ddp_spawn": "spawn", "ddp_fork": "fork"}.get(STRATEGY, "popen")
    only = os.environ.get("CALLBACKS_ON")
    own = os.environ.get("LOCAL_RANK", "0")
    for fit in range(int(os.environ.get("FITS", "1"))):
        pl.seed_everything(fit)
        logger = WandbLogger(project="ranks", save_dir=FOLDER, offline=True) if "LOGGER" in os.environ else False
        trainer = pl.Trainer(
            max_epochs=2,
            accelerator="cpu",
            devices=1 if STRATEGY == "mixed" and fit == 0 else int(os.environ.get("DEVICES", "2")),
            strategy="auto"
            if STRATEGY == "mixed" and fit == 0
            else DDPStrategy(start_method="fork" if STRATEGY == "mixed" else method, timeout=timeout),
            logger=logger,
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=FOLDER,
            callbacks=[ExactResume(every="1m")] if only in (None, own) else [],
        )
        model = Model(fit)
        trainer.fit(model, DataLoader(TensorDataset(torch.rand(80, 4)), batch_size=4, shuffle=True))
        print("FIT", fit, model.layer.weight.detach().flatten().tolist(), flush=True)


if __name__ == "__main__":
    main()
