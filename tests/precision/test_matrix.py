"""Accumulation, clipping, fused optimizers, several of them and an overflow, together, against plain float64 steps."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from lightning_green import GreenMixedPrecision
from tests.precision.precision_kit import Lit, distance, fit

EVERYTHING = ["body", "body.*", "head"]  # kept in float32, only scaling, clipping, skipping and stepping are left
CLIPPINGS = [(None, None), (0.05, "norm"), (0.01, "value")]


def clip_(parameters, limit, algorithm):
    if limit and algorithm == "value":
        nn.utils.clip_grad_value_(parameters, limit)
    elif limit:
        nn.utils.clip_grad_norm_(parameters, limit)


def reference(optimizers, accumulation, limit, algorithm, lost):
    """Train in float64 without Lightning; ``lost(step, optimizer)`` says which steps an overflow takes away."""
    module = Lit().double()
    parts = (
        [list(module.parameters())]
        if optimizers == 1
        else [list(module.body.parameters()), [*module.head.parameters()]]
    )
    made = [torch.optim.SGD(part, 0.05, momentum=0.9) for part in parts]
    for index, (x, y) in enumerate(module.train_dataloader()):
        (nn.functional.cross_entropy(module(x.double()), y) / accumulation).backward()
        if (index + 1) % accumulation:
            continue
        for number, (optimizer, part) in enumerate(zip(made, parts, strict=True)):
            clip_(part, limit, algorithm)
            if not lost(index // accumulation, number):
                optimizer.step()
        module.zero_grad()
    return module


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("limit", "algorithm"), CLIPPINGS)
@pytest.mark.parametrize("accumulation", [1, 3])
def test_an_overflow_in_a_window_takes_its_step_and_no_other(fused, limit, algorithm, accumulation):
    plugin = GreenMixedPrecision("fp16", keep_fp32=EVERYTHING, init_scale=256.0)
    module, made = fit(
        plugin,
        Lit("sgd-fused" if fused else "sgd", overflow={4}),
        accumulate_grad_batches=accumulation,
        gradient_clip_val=limit,
        gradient_clip_algorithm=algorithm,
    )
    expected = reference(1, accumulation, limit, algorithm, lambda step, _: step == 4 // accumulation)
    assert distance(module, expected) < 5e-5
    assert (plugin.skipped_steps, plugin.scaler.get_scale()) == (1, 128.0)
    assert made.global_step == 12 // accumulation


class TwoByHand(Lit):
    """Manual optimization of two optimizers with windows; the overflow may be in the head's gradients alone."""

    def __init__(self, fused, accumulation, limit, algorithm, overflow, only_head):
        super().__init__(overflow=overflow)
        self.automatic_optimization = False
        self.fused, self.accumulation, self.limit, self.algorithm = fused, accumulation, limit, algorithm
        self.only_head = only_head

    def training_step(self, batch, batch_idx):
        logits = self(batch[0]).float()
        loss = nn.functional.cross_entropy(logits, batch[1]) / self.accumulation
        if batch_idx in self.overflow:
            loss = loss + 1e38 * (self.head.bias.sum() if self.only_head else loss)
        self.manual_backward(loss)
        if (batch_idx + 1) % self.accumulation:
            return
        for optimizer in self.optimizers():
            self.clip_gradients(optimizer, self.limit, self.algorithm)
            optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self):
        options = {"lr": 0.05, "momentum": 0.9, "fused": self.fused}
        return [torch.optim.SGD(part.parameters(), **options) for part in (self.body, self.head)]


@pytest.mark.parametrize("only_head", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("limit", "algorithm"), CLIPPINGS)
@pytest.mark.parametrize("accumulation", [1, 3])
def test_two_optimizers_by_hand(fused, limit, algorithm, accumulation, only_head):
    plugin = GreenMixedPrecision("fp16", keep_fp32=EVERYTHING, init_scale=256.0)
    module, _ = fit(plugin, TwoByHand(fused, accumulation, limit, algorithm, {4}, only_head))
    expected = reference(
        2, accumulation, limit, algorithm, lambda step, number: step == 4 // accumulation and (number or not only_head)
    )
    assert distance(module, expected) < 5e-5
    assert (plugin.skipped_steps, plugin.scaler.get_scale()) == (1, 128.0)  # one round, however many optimizers


class ReadsByTheHost(TorchDispatchMode):
    """Counts what makes the host wait for a device: numbers that leave their tensor."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("precision", "optimizer", "reads"), [("bf16", "adamw-fused", 0), ("bf16", "sgd", 0), ("fp16", "sgd-fused", 1)]
)
@pytest.mark.parametrize(("limit", "algorithm"), CLIPPINGS)
def test_a_step_reads_no_number_that_it_does_not_need(precision, optimizer, reads, limit, algorithm):
    """With fp16 and a fused optimizer there is one, whether the step was skipped; on CUDA it is read a step later."""

    class Module(Lit):
        def optimizer_step(self, *args, **kwargs):
            with ReadsByTheHost() as mode:
                super().optimizer_step(*args, **kwargs)
            counts.append(mode.count)

    counts = []
    fit(
        GreenMixedPrecision(precision),
        Module(optimizer),
        gradient_clip_val=limit,
        gradient_clip_algorithm=algorithm,
    )
    assert counts == [reads] * 12


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("optimizer", ["sgd", "sgd-fused"])
@pytest.mark.parametrize(("clip", "algorithm"), CLIPPINGS)
@pytest.mark.parametrize("hook", [False, True])
def test_a_batch_without_a_loss_changes_nothing(precision, optimizer, clip, algorithm, hook):
    """``training_step`` may return None: no step, and the next one is as if the batch had not been there."""

    class Module(Lit):
        left_out = ()

        def training_step(self, batch, batch_idx):
            return None if batch_idx in self.left_out else super().training_step(batch, batch_idx)

        def train_dataloader(self):
            batches = list(super().train_dataloader())[:6]
            return DataLoader([b for k, b in enumerate(batches) if self.left_out or k not in (0, 3)], batch_size=None)

    class Hook(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            pass

    options = {"gradient_clip_val": clip, "gradient_clip_algorithm": algorithm}
    with_it, without = Module(optimizer), Module(optimizer)
    with_it.left_out = (0, 3)
    for module in (with_it, without):
        fit(GreenMixedPrecision(precision), module, callbacks=[Hook()] if hook else [], **options)
    assert distance(with_it, without) == 0
