"""A small training with random data, dropout and metrics that can be stopped anywhere and compared with a whole one.

As a script it trains once: ``STOP=term@batch:5 python -m tests.helpers.resume_training FOLDER '{"workers": 2}'``. The
point of the stop is a variable, because other arguments would be another run.
"""

import hashlib
import json
import os
import random
import signal
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
import torchmetrics
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from lightning_green import EmissionsTracker, ExactResume
from lightning_green.run.coordinator import close_current_run
from tests.helpers.resume_data import Data, loaders, validation

CLOCK = "simulated:start=2024-05-02T16:00:00+00:00,batch=60,checkpoint=0,restart=0"


@dataclass(frozen=True)
class Case:
    """Settings of one training; by default twelve batches of four samples in two epochs."""

    epochs: int = 2
    samples: int = 24
    workers: int = 0
    persistent: bool = False
    validate_every: float | int = 1.0
    accumulate: int = 1
    precision: str = "32-true"
    average: str = ""
    schedule: str = "one cycle"
    data: str = "plain"
    manual: bool = False
    sanity: int = 0
    save_every: str | None = None
    trainer: dict = field(default_factory=dict, hash=False)


class Net(pl.LightningModule):
    def __init__(self, case, record):
        super().__init__()
        self.case, self.record = case, record
        self.automatic_optimization = not case.manual
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
        self.accuracy = torchmetrics.classification.MulticlassAccuracy(2, average="micro")
        self.val_accuracy = torchmetrics.classification.MulticlassAccuracy(2, average="micro")

    def step(self, batch, metric):
        parts = list(batch.values()) if isinstance(batch, dict) else [batch]
        parts = [part for part in parts if part is not None]
        x, y = torch.cat([part[1] for part in parts]), torch.cat([part[2] for part in parts])
        scores = self.net(x)
        metric(scores, y)
        indices = [index for part in parts for index in part[0].tolist()]
        return nn.functional.cross_entropy(scores, y), indices

    def training_step(self, batch, batch_idx):
        if self.case.data == "sequential":
            batch = batch[0] if isinstance(batch, tuple) and not torch.is_tensor(batch[0]) else batch
        loss, indices = self.step(batch, self.accuracy)
        self.record("train", [self.current_epoch, batch_idx], indices=indices, loss=float(loss.detach()).hex())
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
        if self.case.manual:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.lr_schedulers().step()
        return loss

    def validation_step(self, batch, batch_idx):
        loss, indices = self.step(batch, self.val_accuracy)
        if not self.trainer.sanity_checking:
            at = [self.global_step, batch_idx]
            self.record("validation", at, indices=indices, loss=float(loss).hex())
        self.log("val_loss", loss)
        self.log("val_accuracy", self.val_accuracy)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 1e-2)
        if self.case.schedule == "one cycle":
            total = self.trainer.estimated_stepping_batches
            total = 40 if total == float("inf") or total < 0 else int(total)
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=total + 20)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.2)
        monitor = {"plateau": "val_loss", "train plateau": "loss_epoch"}[self.case.schedule]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": monitor}}


class Series(Logger):
    """A logger that writes its metrics to the record."""

    name, version = "series", 0

    def __init__(self, record):
        super().__init__()
        self.record = record

    def log_metrics(self, metrics, step=None):
        mine = {key: float(value).hex() for key, value in metrics.items() if not key.startswith(("energy/", "carbon/"))}
        if mine.keys() - {"epoch"}:
            self.record("log", [step, *sorted(mine)], **mine)

    def log_hyperparams(self, *args, **kwargs):
        pass


class Stop(pl.Callback):
    """Stops its process at one point: ``how@where:when``, for example ``term@batch:5``.

    The point is that of this process, so it is kept by the class: attributes of a callback are restored.
    """

    def __init__(self, where):
        Stop.how, _, where = (where or "").partition("@")
        Stop.where, _, when = where.partition(":")
        Stop.when, Stop.count = int(when or 0), -1

    def _at(self, where, count=None):
        if where != self.where:
            return
        Stop.count = self.count + 1 if count is None else count
        if self.count != self.when:
            return
        Stop.where = ""
        if self.how == "error":
            raise RuntimeError("the user's own code")
        name = self.how.removeprefix("group-")  # to every process of the group, as SLURM sends it
        send = os.kill if name == self.how else os.killpg
        send(
            os.getpid(),
            {"usr1": signal.SIGUSR1, "term": signal.SIGTERM, "int": signal.SIGINT, "kill": signal.SIGKILL}[name],
        )

    def on_sanity_check_start(self, trainer, pl_module):
        self._at("sanity")

    def on_train_start(self, trainer, pl_module):
        self._at("train start")

    def on_train_epoch_start(self, trainer, pl_module):
        self._at("epoch start", trainer.current_epoch)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._at("batch start", trainer.fit_loop.epoch_loop.total_batch_idx + 1)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._at("batch", trainer.fit_loop.epoch_loop.total_batch_idx)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        if not trainer.sanity_checking:
            self._at("validation")

    def on_train_epoch_end(self, trainer, pl_module):
        self._at("epoch end", trainer.current_epoch)


def train(folder, case, stop=None):
    """Train to the end or until the stop; write the record, and at the end the digest of the final state."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["LIGHTNING_GREEN_RUN_DIR"] = str(folder / "run")
    os.environ["LIGHTNING_GREEN_RESUME"] = "1"
    os.environ["LIGHTNING_GREEN_CLOCK"] = CLOCK

    rank = int(os.environ.get("LOCAL_RANK", 0))  # each rank writes its own record

    def record(kind, at, **fields):
        with open(folder / f"record{rank or ''}.jsonl", "a") as file:
            file.write(json.dumps({"kind": kind, "at": at, **fields}) + "\n")

    torch.set_num_threads(1)
    pl.seed_everything(3, verbose=False)
    averages = {
        "": [],
        "ema": [EMAWeightAveraging(decay=0.8)],
        "mean": [WeightAveraging()],
        "swa": [StochasticWeightAveraging(swa_lrs=1e-2, swa_epoch_start=1, annealing_epochs=1)],
    }
    precision = {"precision": case.precision}
    if case.precision == "16-mixed":  # as a string, Lightning replaces it by bf16 on a CPU
        precision = {
            "plugins": [
                MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**7, growth_interval=5))
            ]
        }
    trainer = pl.Trainer(
        **{
            "max_epochs": case.epochs,
            "accelerator": "cpu",
            "devices": 1,
            "logger": Series(record),
            "log_every_n_steps": 1,
            "val_check_interval": case.validate_every,
            "check_val_every_n_epoch": None if isinstance(case.validate_every, int) else 1,
            "accumulate_grad_batches": case.accumulate,
            "num_sanity_val_steps": case.sanity,
            "callbacks": [
                ExactResume(every=case.save_every), EmissionsTracker(meter=10.0), *averages[case.average], Stop(stop)
            ],
            "default_root_dir": folder,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **precision,
            **case.trainer,
        }
    )  # fmt: skip
    model = Net(case, record)
    if case.data == "module":
        trainer.fit(model, datamodule=Data(case))
    else:
        trainer.fit(model, loaders(case), validation(case))
    trainer.save_checkpoint(folder / f"final{trainer.global_rank}.ckpt")
    if not trainer.is_global_zero:  # Lightning writes the checkpoint of rank 0 only
        torch.save(trainer._checkpoint_connector.dump_checkpoint(), folder / f"final{trainer.global_rank}.ckpt")
    state = torch.load(folder / f"final{trainer.global_rank}.ckpt", weights_only=True)
    kept = {key: state[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step")}
    kept["scaler"] = [value for key, value in state.items() if "Precision" in key]
    kept["average"] = {key: value for key, value in state["callbacks"].items() if "Averaging" in key}
    kept["average_weights"] = state.get("averaging_state"), state.get("current_model_state")
    kept["random"] = torch.get_rng_state(), float(np.random.rand()), random.random()
    (folder / f"digest{trainer.global_rank}.json").write_text(
        json.dumps({key: digest(value) for key, value in kept.items()})
    )


def digest(value):
    """Return the SHA-256 of nested containers, numbers and tensors."""
    hashed = hashlib.sha256()

    def walk(item):
        hashed.update(type(item).__name__.encode())
        if torch.is_tensor(item):
            hashed.update(str((item.dtype, tuple(item.shape))).encode())
            hashed.update(item.detach().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
        elif isinstance(item, dict):
            for key in sorted(item, key=str):
                walk(str(key)), walk(item[key])
        elif isinstance(item, (list, tuple)):
            for part in item:
                walk(part)
        else:
            hashed.update(repr(item).encode())

    walk(value)
    return hashed.hexdigest()


@contextmanager
def quiet():
    """Restore the environment, signal handlers and warning filters of this process."""
    environment, handlers = dict(os.environ), {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        close_current_run()
        os.environ.clear()
        os.environ.update(environment)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def attempt(folder, case, stop=None):
    """Train in this process; return the exception that stopped it, or None."""
    with quiet():
        try:
            train(folder, case, stop)
        except (SystemExit, KeyboardInterrupt) as error:
            return error
        except RuntimeError as error:
            if str(error) != "the user's own code":
                raise
            return error
    return None


def outcome(folder):
    """Return the outcome of a run, in any number of parts: the digests, and the last record of each position."""
    records = {}
    for line in (folder / "record.jsonl").read_text().splitlines():
        entry = json.loads(line)
        records[json.dumps([entry.pop("kind"), entry.pop("at")])] = entry
    digests = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("digest*.json"))}
    assert digests, "the training did not finish"
    return {"digests": digests, "records": records}


def repeated(folder):
    """Return the number of batches that were trained more than once."""
    lines = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
    at = [tuple(line["at"]) for line in lines if line["kind"] == "train"]
    return len(at) - len(set(at))


def differences(reference, other):
    """Return the first differences of two outcomes as sentences."""
    found = []
    for name, digests in reference["digests"].items():
        theirs = other["digests"].get(name, {})
        found += [f"{name}: {key}" for key in digests if digests[key] != theirs.get(key)]
    mine, theirs = reference["records"], other["records"]
    for key in [*mine, *(key for key in theirs if key not in mine)]:
        if mine.get(key) != theirs.get(key):
            found.append(f"{key}: {mine.get(key)} uninterrupted, {theirs.get(key)} resumed")
    return found[:8]


if __name__ == "__main__":
    train(Path(sys.argv[1]), Case(**json.loads(sys.argv[2])), os.environ.get("STOP"))
