"""A classifier, its data, and fits that resume from checkpoints, for tests of the compression callbacks."""

import csv

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.helpers.compression_networks import Residual
from tests.helpers.trainers import quiet_trainer


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.block = Residual(width, width)
        self.dropout = nn.Dropout(0.1)
        self.fc = nn.Linear(width, 4)

    def forward(self, x):
        x = self.block(nn.functional.relu(self.bn(self.stem(x)))).mean((2, 3))
        return self.fc(self.dropout(x))


class Lit(pl.LightningModule):
    def __init__(self, optimizer="sgd", width=8):
        super().__init__()
        self.net = Net(width)
        self.optimizer = optimizer
        self.register_buffer("causal_mask", torch.ones(3))  # a name that broke Lightning's own pruning

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    test_step = validation_step

    def configure_optimizers(self):
        groups = [{"params": self.net.stem.parameters(), "lr": 0.02}, {"params": list(self.net.parameters())[1:]}]
        if self.optimizer == "adam":
            optimizer = torch.optim.AdamW(groups, 1e-2)
        else:
            optimizer = torch.optim.SGD(groups, 0.05, momentum=0.9, weight_decay=1e-3)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)]


class TwoOptimizers(Lit):
    """Optimizes manually, with an optimizer for the stem and one for the rest."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(p, 0.01) for p in (self.net.stem.parameters(), list(self.net.parameters())[1:])]


def loader(size=48, batch=8):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(size, 3, 8, 8, generator=generator)
    y = (x.mean((1, 2, 3)) * 40).long() % 4
    return DataLoader(TensorDataset(x, y), batch)


class SeededSteps(Callback):
    """Make dropout and data a function of the batch index, as an exactly resumed run does."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.manual_seed(1000 * trainer.current_epoch + batch_idx)
        dataset = trainer.train_dataloader.dataset
        start = batch_idx * len(batch[0])
        for tensor, whole in zip(batch, dataset.tensors, strict=True):
            tensor.copy_(whole[start : start + len(tensor)])


class SaveAt(Callback):
    """Save a checkpoint in `on_train_batch_end` after each of the given optimizer steps."""

    def __init__(self, folder, steps):
        self.folder, self.steps = folder, steps

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        just_stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if just_stepped and trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


class StepsBefore(Callback):
    """Count the optimizer steps before an exception."""

    def __init__(self):
        self.steps = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps = trainer.global_step


def images(count=16):
    """Return images of `loader`'s kind."""
    return next(iter(loader(count, count)))[0]


def trainer(folder, callbacks, epochs=3, **options):
    return quiet_trainer(folder, *callbacks, **{"max_epochs": epochs, "limit_val_batches": 1.0, **options})


def fit(folder, *callbacks, module=None, data=None, **options):
    """Fit a module with the callbacks, and return the module and its Trainer."""
    torch.manual_seed(0)
    module = module or Lit()
    t = trainer(folder, callbacks, **options)
    t.fit(module, data or loader())
    return module, t


def logged_in(folder):
    """Return the values of each name in the table of a CSVLogger."""
    (table,) = folder.rglob("metrics.csv")
    rows = list(csv.DictReader(table.open()))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


def assert_equal(a, b, path=""):
    """Assert that two nested states are equal bit for bit."""
    assert type(a) is type(b), f"{path}: {type(a)} and {type(b)}"
    if isinstance(a, torch.Tensor):
        assert a.shape == b.shape, f"{path}: {a.shape} and {b.shape}"
        assert torch.equal(a, b), f"{path}: differs by {(a.float() - b.float()).abs().max()}"
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), f"{path}: {a.keys() ^ b.keys()}"
        for key in a:
            assert_equal(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{path}/{i}")
    else:
        assert a == b, f"{path}: {a} and {b}"


def assert_resumes_exactly(folder, make_callbacks, steps, make_module=Lit, val=True, **kwargs):
    """Assert that a fit resumed from each checkpoint ends with the state of the uninterrupted fit."""

    def fit(ckpt=None, save=()):
        torch.manual_seed(0)
        module = make_module()
        t = trainer(folder, [*make_callbacks(), SeededSteps(), SaveAt(folder, save)], **kwargs)
        t.fit(module, loader(), loader(16) if val else None, ckpt_path=ckpt, weights_only=True if ckpt else None)
        t.save_checkpoint(folder / "end.ckpt")
        end = torch.load(folder / "end.ckpt", weights_only=True)
        return module, {key: end[key] for key in ("state_dict", "optimizer_states", "callbacks", "lr_schedulers")}

    module, whole = fit(save=steps)
    for step in steps:
        assert (folder / f"{step}.ckpt").exists(), f"step {step} was never reached"
        _, again = fit(ckpt=folder / f"{step}.ckpt")
        assert_equal(again, whole, f"resumed at {step}")
    return module, whole
