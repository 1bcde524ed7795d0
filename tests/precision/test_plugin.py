"""Accumulation, clipping, fused and several optimizers, and overflows, against steps in float64."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from lightning_green import GreenMixedPrecision
from tests.helpers.precision_fits import Lit, distance, fit

ALL_MODULES = ["body", "body.*", "head"]
CLIPPINGS = [(None, None), (0.05, "norm"), (0.01, "value")]


def test_lbfgs_with_fp16_raises():
    class Module(Lit):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters())

    with pytest.raises(ValueError, match="LBFGS evaluates the loss several times per step"):
        fit(GreenMixedPrecision("fp16"), Module())


class Reference(Lit):
    """The same training in float64 without Lightning."""

    def run(self, accumulation, clip, algorithm):
        self.double()
        optimizer = self.configure_optimizers()
        batches = [(x.double(), y) for x, y in self.train_dataloader()]
        for index, (x, y) in enumerate(batches):
            logits = self.head(self.body(x))
            (nn.functional.cross_entropy(logits, y) / accumulation).backward()
            if (index + 1) % accumulation == 0:
                if clip and algorithm == "value":
                    nn.utils.clip_grad_value_(self.parameters(), clip)
                elif clip:
                    nn.utils.clip_grad_norm_(self.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
        return self


@pytest.mark.sampled
@pytest.mark.parametrize("optimizer", ["sgd", "sgd-fused", "adamw", "adamw-fused"])
@pytest.mark.parametrize(("clip", "algorithm"), [(None, None), (0.05, "norm"), (0.01, "value")])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_steps_match_float64(optimizer, clip, algorithm, accumulation):
    """With all modules in float32, only scaling, clipping and stepping differ, which are nearly exact."""
    reference = Reference(optimizer).run(accumulation, clip, algorithm)
    options = {
        "accumulate_grad_batches": accumulation,
        "gradient_clip_val": clip,
        "gradient_clip_algorithm": algorithm,
    }
    exact = ["body", "head", "body.*"]
    for precision in ("fp16", "bf16", "fp32"):
        module, _ = fit(GreenMixedPrecision(precision, keep_fp32=exact), Lit(optimizer), **options)
        assert distance(module, reference) < 5e-5, precision
    for precision, tolerance in (("fp16", 0.02), ("bf16", 0.1)):
        module, _ = fit(GreenMixedPrecision(precision), Lit(optimizer), **options)
        assert 0 < distance(module, reference) < tolerance, precision


def clip_(parameters, limit, algorithm):
    if limit and algorithm == "value":
        nn.utils.clip_grad_value_(parameters, limit)
    elif limit:
        nn.utils.clip_grad_norm_(parameters, limit)


def reference(parts, accumulation, limit, algorithm, skipped):
    """Train in float64 without Lightning and without the steps for which ``skipped(step, optimizer)`` is true."""
    module = Lit().double()
    parts = [list(part.parameters()) for part in ([module] if parts == 1 else [module.body, module.head])]
    optimizers = [torch.optim.SGD(part, 0.05, momentum=0.9) for part in parts]
    for index, (x, y) in enumerate(module.train_dataloader()):
        (nn.functional.cross_entropy(module(x.double()), y) / accumulation).backward()
        if (index + 1) % accumulation:
            continue
        for number, (optimizer, part) in enumerate(zip(optimizers, parts, strict=True)):
            clip_(part, limit, algorithm)
            if not skipped(index // accumulation, number):
                optimizer.step()
        module.zero_grad()
    return module


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("limit", "algorithm"), CLIPPINGS)
@pytest.mark.parametrize("accumulation", [1, 3])
def test_overflow_in_an_accumulation_window_skips_only_its_step(fused, limit, algorithm, accumulation):
    plugin = GreenMixedPrecision("fp16", keep_fp32=ALL_MODULES, init_scale=256.0)
    module, trainer = fit(
        plugin,
        Lit("sgd-fused" if fused else "sgd", overflow={4}),
        accumulate_grad_batches=accumulation,
        gradient_clip_val=limit,
        gradient_clip_algorithm=algorithm,
    )
    expected = reference(1, accumulation, limit, algorithm, lambda step, _: step == 4 // accumulation)
    assert distance(module, expected) < 5e-5
    assert (plugin.skipped_steps, plugin.scaler.get_scale()) == (1, 128.0)
    assert trainer.global_step == 12 // accumulation


class TwoManualOptimizers(Lit):
    """Manual optimization with accumulation. With ``only_head``, only the gradients of the head overflow."""

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
def test_two_manual_optimizers_match_float64(fused, limit, algorithm, accumulation, only_head):
    plugin = GreenMixedPrecision("fp16", keep_fp32=ALL_MODULES, init_scale=256.0)
    module, _ = fit(plugin, TwoManualOptimizers(fused, accumulation, limit, algorithm, {4}, only_head))
    expected = reference(
        2, accumulation, limit, algorithm, lambda step, number: step == 4 // accumulation and (number or not only_head)
    )
    assert distance(module, expected) < 5e-5
    assert (plugin.skipped_steps, plugin.scaler.get_scale()) == (
        1,
        128.0,
    )  # one update for both optimizers


class DeviceReads(TorchDispatchMode):
    """Count the reads of tensor values, for which the host waits on a GPU."""

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
def test_step_reads_only_the_outcome_from_the_device(precision, optimizer, reads, limit, algorithm):
    """fp16 with a fused optimizer reads whether the step was skipped. On CUDA this is deferred to the next step."""

    class Module(Lit):
        def optimizer_step(self, *args, **kwargs):
            with DeviceReads() as mode:
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
def test_batch_without_a_loss_changes_nothing(precision, optimizer, clip, algorithm, hook):
    """A batch for which ``training_step`` returns None is equivalent to its absence."""

    class Module(Lit):
        omitted = ()

        def training_step(self, batch, batch_idx):
            return None if batch_idx in self.omitted else super().training_step(batch, batch_idx)

        def train_dataloader(self):
            batches = list(super().train_dataloader())[:6]
            return DataLoader([b for k, b in enumerate(batches) if self.omitted or k not in (0, 3)], batch_size=None)

    class Hook(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            pass

    options = {"gradient_clip_val": clip, "gradient_clip_algorithm": algorithm}
    with_none, without = Module(optimizer), Module(optimizer)
    with_none.omitted = (0, 3)
    for module in (with_none, without):
        fit(GreenMixedPrecision(precision), module, callbacks=[Hook()] if hook else [], **options)
    assert distance(with_none, without) == 0
