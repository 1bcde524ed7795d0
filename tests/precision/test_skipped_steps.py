"""Count of skipped steps, and schedulers that skip with them."""

import csv
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from lightning_green import GreenMixedPrecision
from lightning_green.precision.skipped_steps import SkippedSteps
from tests.helpers.precision_fits import Lit, distance, fit, trainer


@pytest.mark.parametrize("optimizer", ["sgd", "adamw-fused"])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_overflow_skips_the_step_of_optimizer_and_scheduler(optimizer, clip):
    plugin = GreenMixedPrecision("fp16")
    module, first_trainer = fit(
        plugin, Lit(optimizer, {3}, schedule=True), limit_train_batches=6, gradient_clip_val=clip
    )
    assert plugin.skipped_steps == 1
    assert plugin.scaler.get_scale() == 32768.0
    assert first_trainer.global_step == 6
    start = 0.05 if optimizer == "sgd" else 0.01
    assert module.rates == pytest.approx([start * 0.5**k for k in (1, 2, 3, 3, 4, 5)])
    assert all(torch.isfinite(p).all() for p in module.parameters())
    # a run without this batch ends with the same weights
    without = Lit(optimizer, schedule=True)
    batches = [batch for index, batch in enumerate(without.train_dataloader()) if index < 6 and index != 3]
    trainer(GreenMixedPrecision("fp16"), gradient_clip_val=clip).fit(without, DataLoader(batches, batch_size=None))
    assert distance(module, without) < 2e-4


def test_deferred_reading_skips_the_scheduler_one_step_later_with_and_without_a_checkpoint(monkeypatch, tmp_path):
    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 3:
                trainer.save_checkpoint(tmp_path / "a.ckpt")

    monkeypatch.setattr(GreenMixedPrecision, "_defers_reading", lambda self, optimizer: True)
    expected = pytest.approx([0.01 * 0.5**k for k in (1, 2, 3, 4, 4, 5, 6)])
    for callbacks in ([], [Save()]):
        plugin = GreenMixedPrecision("fp16")
        module, _ = fit(plugin, Lit("adamw-fused", {3}, schedule=True), limit_train_batches=7, callbacks=callbacks)
        assert module.rates == expected
        assert plugin.skipped_steps == 1
    plugin = GreenMixedPrecision("fp16")
    rest = Lit("adamw-fused", {3}, schedule=True)
    fit(plugin, rest, ckpt_path=tmp_path / "a.ckpt", limit_train_batches=7)
    assert rest.rates == module.rates[4:]
    assert plugin.skipped_steps == 1


@pytest.mark.parametrize("overflow", [{3}, {3, 4}])
def test_fallback_in_an_accumulation_window_unscales_its_gradients(monkeypatch, overflow):
    """With deferred reading, the fallback follows the first backward pass of the window, here that of batch 4."""

    class Module(Lit):
        def __init__(self):
            super().__init__("sgd-fused", overflow)
            self.norms = []

        def on_before_optimizer_step(self, optimizer):
            self.norms.append(torch.stack([p.grad.norm() for p in self.parameters()]).norm().item())

    monkeypatch.setattr(GreenMixedPrecision, "_defers_reading", lambda self, optimizer: True)
    plugin = GreenMixedPrecision("fp16", max_consecutive_skips=1, fallback="fp32")
    with pytest.warns(UserWarning, match="1 consecutive steps overflowed, so training continues in 32-true"):
        module, _ = fit(plugin, Module(), limit_train_batches=8, accumulate_grad_batches=2)
    assert len(module.norms) == 4
    assert max(module.norms[2:]) < 10
    assert all(torch.isfinite(p).all() for p in module.parameters())
    if 4 in overflow:
        return  # the gradients of batch 4 are removed
    reference, batches = Lit("sgd"), list(module.train_dataloader())
    optimizer = reference.configure_optimizers()
    for first in (0, 4, 6):
        optimizer.zero_grad()
        sum(reference.loss(batch) / 2 for batch in batches[first : first + 2]).backward()
        optimizer.step()
    assert distance(module, reference) < 2e-3


@pytest.mark.parametrize("fallback", ["none", "fp32"])
@pytest.mark.parametrize("growth_interval", [1, 2000])
def test_scale_may_change_while_another_optimizer_accumulates(fallback, growth_interval):
    """The first optimizer steps after each batch, which changes the scale; the second one after the second batch."""

    class Two(pl.LightningModule):
        automatic_optimization = False

        def __init__(self):
            super().__init__()
            self.a, self.b = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))

        def training_step(self, batch, batch_idx):
            first, second = self.optimizers()
            first.zero_grad()
            self.manual_backward(self.a.sum() * (1e38 if growth_interval > 1 and batch_idx == 0 else 1.0))
            self.manual_backward(3 * self.b.sum())
            first.step()
            if batch_idx == 1:
                second.step()

        def configure_optimizers(self):
            return torch.optim.SGD([self.a], 1.0), torch.optim.SGD([self.b], 1.0)

        def train_dataloader(self):
            return DataLoader(torch.zeros(2, 1))

    plugin = GreenMixedPrecision(
        "fp16", init_scale=1024.0, growth_interval=growth_interval, max_consecutive_skips=1, fallback=fallback
    )
    module = Two()
    trainer(plugin).fit(module)
    assert plugin.skipped_steps == (growth_interval > 1)
    assert module.b.item() == -6.0


def test_scheduler_with_frequency_skips_once_per_frequency_skipped_steps():
    module, _ = fit(GreenMixedPrecision("fp16"), Lit("sgd", {1, 2}, True, frequency=2), limit_train_batches=8)
    assert module.rates == pytest.approx([0.05 * 0.5**k for k in (0, 1, 1, 1, 1, 2, 2, 3)])


def test_skipped_steps_and_scale_are_logged(tmp_path):
    logger = CSVLogger(tmp_path)
    fit(GreenMixedPrecision("fp16"), Lit("sgd", {2}), logger=logger, log_every_n_steps=1)
    with (Path(logger.log_dir) / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["precision/loss_scale"]]
    assert [float(row["precision/loss_scale"]) for row in rows] == [65536.0] * 2 + [32768.0] * 10
    assert [float(row["precision/skipped_steps"]) for row in rows] == [0.0] * 2 + [1.0] * 10


def test_counts_are_read_in_order_and_restored():
    skips = SkippedSteps()
    for overflow in (1.0, 0.0, 1.0, 2.0):
        skips.add(torch.tensor(overflow))
    assert skips.has_unread
    assert skips.read(schedulers=1)
    assert (skips.total, skips.consecutive, skips.has_unread) == (3, 2, False)
    restored = SkippedSteps()
    restored.load_state_dict(skips.state_dict())
    assert [restored.skip_scheduler(0, 2), restored.skip_scheduler(0, 2)] == [True, False]
    assert (restored.total, restored.consecutive) == (3, 2)
