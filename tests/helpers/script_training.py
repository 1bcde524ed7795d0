"""Parts of the scripts in ``tests/identity``: a small network, its data, a Trainer, and a line of results per fit.

The scripts are started the way users start them. The variable FAULT stops one: ``kill@LABEL:STEP``,
``error@LABEL:STEP`` or ``term@LABEL:STEP``, once in a directory.
"""

import hashlib
import json
import os
import re
import signal
import weakref
from datetime import datetime, timedelta, timezone
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import CarbonScheduler, EmissionsTracker, ExactResume

torch.set_num_threads(1)
START = datetime(2024, 5, 2, tzinfo=timezone.utc)
STEPS = weakref.WeakKeyDictionary()
CLOCK = f"simulated:start={START.isoformat()},batch=600,checkpoint=0,restart=0"


class Net(pl.LightningModule):
    def __init__(self, lr=1e-2, label="only"):
        super().__init__()
        self.lr, self.label = lr, label
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))

    @property
    def trained(self):
        """Steps in this process; an attribute would be restored."""
        return STEPS.get(self, 0)

    def training_step(self, batch, batch_idx):
        STEPS[self] = self.trained + 1
        loss = self.net(batch[0]).square().mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.net(batch[0]).square().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.lr)


class Fault(pl.Callback):
    """Stops the process in the fit with a label, after a step, once."""

    def __init__(self):
        how, _, where = os.environ.get("FAULT", "").partition("@")
        self.how, (self.label, _, step) = how, where.partition(":")
        self.step = int(step or 0)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.label == self.label and trainer.global_step == self.step and once("fault"):
            if self.how == "error":
                raise RuntimeError("the user's own code")
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "term": signal.SIGTERM}[self.how])


def once(name):
    """Return whether this is the first time in this directory."""
    try:
        Path(f"{name}.once").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def data(samples=24, seed=0):
    return TensorDataset(torch.randn(samples, 4, generator=torch.Generator().manual_seed(seed)))


def loader(samples=24, seed=0, batch_size=4):
    return DataLoader(data(samples, seed), batch_size, shuffle=True)


def grid():
    """Return the path of a trace that alternates between a clean and a dirty hour."""
    path = Path("trace.csv").absolute()
    rows = [f"{(START + timedelta(hours=h)).isoformat()},{20 if h % 2 == 0 else 900}" for h in range(300)]
    path.write_text("datetime,carbon_intensity\n" + "\n".join(rows) + "\n")
    return str(path)


def exact():
    return [ExactResume(every=timedelta(seconds=0)), Fault()]


def carbon(meter=300.0):
    scheduler = CarbonScheduler(deadline="10d", resume_cost=0.001, hold_power=0.9)
    return [EmissionsTracker(grid=grid(), meter=meter), scheduler, Fault()]


def trainer(*callbacks, **options):
    settings = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "num_sanity_val_steps": 0}
    settings |= {"enable_progress_bar": False, "enable_model_summary": False, "callbacks": list(callbacks)}
    return pl.Trainer(**{**settings, **options})


def digest(module):
    hashed = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        hashed.update(name.encode() + tensor.detach().numpy().tobytes())
    return hashed.hexdigest()[:16]


def report(label, of, module, **more):
    """Write the results that a script reads after a fit; ``trained`` is the number of steps of this process."""
    best = getattr(of.checkpoint_callback, "best_model_path", "")
    score = getattr(of.checkpoint_callback, "best_model_score", None)
    line = {
        "label": label,
        "trained": module.trained,
        "weights": digest(module),
        "metrics": {name: float(value).hex() for name, value in sorted(of.callback_metrics.items())},
        "logged": {name: float(value).hex() for name, value in sorted(of.logged_metrics.items())},
        "epoch": of.current_epoch,
        "step": of.global_step,
        "stopped": of.should_stop,
        "status": str(of.state.status),
        "best": re.sub(r"-v\d+", "", os.path.basename(best)),  # trainings of one directory share its checkpoints
        "score": None if score is None else float(score).hex(),
        **more,
    }
    with open("results.jsonl", "a") as results:
        results.write(json.dumps(line) + "\n")
