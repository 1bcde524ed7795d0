"""Short trainings with GreenDDPStrategy on two ranks, all in one process each.

python green_ddp_training.py FOLDER [CASE...]

Each rank writes what the cases return to FOLDER.
"""

import hashlib
import json
import os
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from socket_bytes import sent_bytes  # noqa: E402

from lightning_green import GreenDDPStrategy  # noqa: E402

WIDTH, BATCHES = 48, 12
FOLDER = Path(sys.argv[1])
LOW_RANK = {"compression": "low_rank", "compression_rank": 2}
AVERAGE = {"compression": None, "average_every": 3, "start_averaging_at_step": 2}
KINDS = {
    "none": {"compression": None},
    "bf16": {"compression": "bf16"},
    "fp16": {"compression": "fp16"},
    "low_rank": LOW_RANK,
    "average": {"compression": None, "average_every": 4},
}
SCALE = 16  # of the widths with which bytes are counted


class Net(pl.LightningModule):
    """Has a matrix, a bias, batch norm, a kernel and a part that only some batches use."""

    def __init__(self, width=WIDTH, scale=1):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, width * scale), nn.BatchNorm1d(width * scale), nn.ReLU(), nn.Linear(width * scale, width)
        )
        self.kernel = nn.Conv2d(4, 8, 3, padding=1)
        self.sometimes = nn.Linear(width, width)
        self.use_all = True

    def loss(self, x):
        out = self.net(x) + self.kernel(x.view(-1, 4, 4, 3)).view(x.shape[0], -1, x.shape[1]).mean(1)
        if self.use_all or self.trainer.global_rank == 0:
            out = out + 0.1 * self.sometimes(x)
        return (out - x.sin()).square().mean()

    def training_step(self, batch, batch_idx):
        return self.loss(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)


class TwoOptimizers(Net):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self):
        parts = [*self.net.parameters(), *self.kernel.parameters()], self.sometimes.parameters()
        return [torch.optim.SGD(part, 0.05) for part in parts]

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        self.manual_backward(self.loss(batch[0]))
        first.step(), first.zero_grad()
        if batch_idx % 2:
            second.step(), second.zero_grad()


class Odd(Net):
    """Has complex, shared and frozen parameters."""

    def __init__(self):
        super().__init__()
        self.phase = nn.Parameter(torch.randn(WIDTH, WIDTH, dtype=torch.complex64))
        self.sometimes.weight = self.net[0].weight
        self.kernel.weight.requires_grad_(False)

    def training_step(self, batch, batch_idx):
        return self.loss(batch[0]) + 0.1 * (batch[0].to(torch.complex64) @ self.phase).abs().square().mean()


class Sparse(Net):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, WIDTH, sparse=True)

    def training_step(self, batch, batch_idx):
        return self.loss(batch[0] + self.table(batch[0][:, 0].abs().mul(10).long()))


class Overflows(Net):
    """Has an infinite loss on rank 1 in one batch."""

    def training_step(self, batch, batch_idx):
        factor = torch.inf if batch_idx == 3 and self.trainer.global_rank == 1 else 1.0
        return super().training_step(batch, batch_idx) * factor


class Watch(pl.Callback):
    """Counts bytes after the first steps, by the strategy and by the kernel, and how often the ranks differ."""

    def __init__(self):
        self.counted, self.sockets, self.digests, self.loss = [], [], [], 0.0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.counted.append(trainer.strategy.communication.traffic.sent)
        self.sockets.append(sent_bytes())
        self.digests.append(digest(pl_module))
        self.loss = float(outputs.get("loss", 0.0))  # manual optimization returns none


def digest(module):
    content = hashlib.sha256()
    for one in module.parameters():
        content.update(one.detach().cpu().numpy().tobytes())
    return content.hexdigest()[:12]


def trainer_of(strategy, *callbacks, **options):
    options = {"max_epochs": 1, "enable_checkpointing": False, **options}
    return pl.Trainer(
        **options,
        accelerator=os.environ.get("ACCELERATOR", "cpu"),
        devices=2,
        strategy=GreenDDPStrategy(**{"bucket_cap_mb": 0.004, "timeout": timedelta(seconds=60), **strategy}),
        logger=False,
        callbacks=list(callbacks),
        default_root_dir=FOLDER,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=True,
    )


def data():
    x = torch.randn(2 * 8 * BATCHES, WIDTH, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x), 8)


def train(strategy, module=Net, prepare=None, **options):
    pl.seed_everything(3, verbose=False)
    model, watch = module() if isinstance(module, type) else module, Watch()
    if prepare is not None:
        prepare(model)
    trainer = trainer_of(strategy, watch, **options)
    trainer.fit(model, data())
    found = {"digest": digest(model), "digests": watch.digests, "steps": trainer.global_step, "loss": watch.loss}
    found["finite"] = all(bool(one.isfinite().all()) for one in model.parameters())
    half = len(watch.counted) // 3
    found["counted"] = watch.counted[-1] - watch.counted[half]
    found["sockets"] = watch.sockets[-1] - watch.sockets[half]
    low_rank = trainer.strategy.communication.low_rank
    if low_rank is not None:
        found["errors"] = {name: float(error.norm()) for name, error in low_rank.errors.items()}
    return found


def kind(name):
    return train(KINDS[name], Net(scale=SCALE))


def checkpoint():
    """Return how far the weights are from an uninterrupted training, with the saved state and without it."""

    def fit(*callbacks, path=None, epochs=2):
        pl.seed_everything(3, verbose=False)
        model = Net()
        options = {"enable_checkpointing": bool(callbacks)}
        trainer = trainer_of({**LOW_RANK, "compression_rank": 1}, *callbacks, max_epochs=epochs, **options)
        trainer.fit(model, data(), ckpt_path=path)
        return torch.cat([one.detach().flatten() for one in model.parameters()])

    expected = fit()
    saves = ModelCheckpoint(FOLDER / "saved", filename="one", enable_version_counter=False)
    fit(saves, epochs=1)
    path, without = FOLDER / "saved" / "one.ckpt", FOLDER / f"without-{torch.distributed.get_rank()}.ckpt"
    torch.distributed.barrier()
    saved = torch.load(path, weights_only=True)
    del saved["lightning_green_communication"]
    torch.save(saved, without)
    differences = [float((fit(path=one) - expected).abs().max()) for one in (path, without)]
    return dict(zip(("restored", "lost"), differences, strict=True))


def average_in_checkpoint():
    """Return the weights of a checkpoint between two averages, and the sums over the ranks of those at that time."""
    model, found = Net(), {}

    class Compare(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 6:
                trainer.save_checkpoint(FOLDER / "between.ckpt")
                mean = pl_module.net[0].weight.detach().clone()
                found["own"] = digest(pl_module)
                torch.distributed.all_reduce(mean)
                saved = torch.load(FOLDER / "between.ckpt", mean.device, weights_only=True)["state_dict"][
                    "net.0.weight"
                ]
                found["difference"] = float((saved - mean / 2).abs().max())

    pl.seed_everything(3, verbose=False)
    trainer_of({"compression": None, "average_every": 100}, Compare()).fit(model, data())
    return {**found, "digest": digest(model)}


def fp16(scale, interval=2000):
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=interval)
    return MixedPrecision("16-mixed", "cpu", scaler=scaler)


def compile_part(model):
    model.net = torch.compile(model.net, backend="eager")


def unused(model):
    model.use_all = False


CASES = {
    **{name: lambda name=name: kind(name) for name in KINDS},
    "accumulated": lambda: train(LOW_RANK, accumulate_grad_batches=3),
    "unused": lambda: train({"compression": "bf16", "find_unused_parameters": True}, prepare=unused),
    "unused_average": lambda: train({**AVERAGE, "find_unused_parameters": True}, prepare=unused),
    "static": lambda: train({**LOW_RANK, "static_graph": True}),
    "views": lambda: train({**LOW_RANK, "gradient_as_bucket_view": True}),
    "compiled": lambda: train({**LOW_RANK, "bucket_cap_mb": 25}, prepare=compile_part),
    "odd": lambda: train(LOW_RANK, Odd),
    "odd_bf16": lambda: train({"compression": "bf16"}, Odd),
    "sparse": lambda: train(LOW_RANK, Sparse),
    "two": lambda: train(LOW_RANK, TwoOptimizers),
    "two_average": lambda: train(AVERAGE, TwoOptimizers),
    "overflow": lambda: train(LOW_RANK, Overflows, plugins=[fp16(64.0)]),
    "scales": lambda: [train(LOW_RANK, plugins=[fp16(64.0, every)], max_epochs=2)["loss"] for every in (4, 2000)],
    "average_checkpoint": average_in_checkpoint,
    "checkpoint": checkpoint,
}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    results = {name: CASES[name]() for name in sys.argv[2:] or CASES}
    (FOLDER / f"rank{torch.distributed.get_rank()}.json").write_text(json.dumps(results))
