"""A training of 24 batches that takes no time, on a clock on which each batch takes ten minutes."""

import hashlib
import warnings
from datetime import datetime, timezone

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import CarbonScheduler, EmissionsTracker, SimulatedClock
from tests.helpers.ledgers import read_records

START = datetime(2024, 5, 2, tzinfo=timezone.utc)
WATTS = 300.0
BATCHES = 24  # four hours of the clock
DIRTY_THEN_CLEAN = [600.0] * 4 + [50.0] * 20


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        loss = self.net(batch[0]).pow(2).mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


def clock(**seconds):
    """Return a clock that begins at ``START``: ten minutes a batch, five to come back, none to save."""
    return SimulatedClock(START, **{"seconds_per_batch": 600.0, "seconds_per_restart": 300.0, **seconds})


def tracker(**given):
    """Return a tracker of 300 W at 100 gCO2e/kWh on a simulated clock."""
    return EmissionsTracker(**{"meter": WATTS, "grid": 100.0, "clock": clock(), **given})


def train(folder, *callbacks, validate=False, **options):
    """Train two epochs of twelve batches with these callbacks; return the trainer and a digest of the weights."""
    pl.seed_everything(1, verbose=False)
    settings = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "callbacks": list(callbacks),
        "logger": False,
        "default_root_dir": folder,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 1.0 if validate else 0,
    }
    model, data = Net(), TensorDataset(torch.randn(48, 4))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        trainer = pl.Trainer(**{**settings, **options})
        trainer.fit(model, DataLoader(data, 4, shuffle=True), DataLoader(data, 24) if validate else None)
    return trainer, digest(model)


def digest(model):
    """Return the SHA-256 of a model's weights."""
    hashed = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        hashed.update(name.encode() + tensor.numpy().tobytes())
    return hashed.hexdigest()


def events(folder, name=None):
    """Return the events of the one run below ``folder``; those named ``name`` alone where it is given."""
    (ledger,) = folder.rglob("ledger.*.jsonl")
    return [record for record in read_records(ledger.parent) if name in (None, record["event"])]


def scheduler(trace, **given):
    """Return a scheduler of 300 W with a deadline of 20 h."""
    settings = {"deadline": "20h", "hold_power": 0.1, "resume_cost": 0.05, "meter": 300.0, "clock": clock()}
    return CarbonScheduler(**{"grid": trace, **settings, **given})


def block(caplog):
    """Return the start-up block by the name that each line begins with."""
    blocks = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Lightning Green\n")]
    (lines,) = [text.splitlines()[1:] for text in blocks if "Meter" in text]
    assert len(lines) <= 6
    return {line.split()[0]: line.split(None, 1)[1] for line in lines}


def states(folder):
    """Return the states of the one run below ``folder``."""
    return {record["state"] for record in events(folder) if "state" in record}
