"""Pruning, quantization, distillation, mixed precision and the scheduler's pauses in one training."""

import itertools
import os
from datetime import timedelta

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_green import (
    CarbonScheduler,
    GreenMixedPrecision,
    KnowledgeDistillation,
    Pruning,
    QuantizationAwareTraining,
)
from lightning_green.compression import export
from tests.helpers.compression_fits import Lit, Net, assert_equal, loader, trainer
from tests.helpers.extras import needs_onnx, needs_torch_pruning
from tests.helpers.keyword_networks import LitTokens, sentences
from tests.helpers.resume_training import quiet
from tests.helpers.traces import START, write_trace

CLOCK = f"simulated:start={START.isoformat()},batch=600,checkpoint=60,restart=60"


def net(width=16):
    torch.manual_seed(7)
    made = Net(width)
    for _ in range(20):
        made(torch.randn(32, 3, 8, 8))  # running statistics
    return made.eval()


def masked():
    return [
        Pruning(0.6, begin=0.1, end=0.5, every_n_steps=2),
        QuantizationAwareTraining(begin=0.6, freeze=0.85),
        KnowledgeDistillation(net(), cache="memory"),
    ]


def channels():
    return [
        Pruning(0.5, "channels", begin=0.15, end=0.5, every_n_steps=3),
        QuantizationAwareTraining(begin=0.6, freeze=0.85),
        KnowledgeDistillation(net(), {"standardized": 1.0, "hint": 1.0}, layers={"block": "block"}),
    ]


class Steps(pl.Callback):
    """Record the global step at which each fit starts."""

    def __init__(self, starts):
        self.starts = starts

    def on_train_start(self, trainer, pl_module):
        self.starts.append(trainer.global_step)


def whole_run(folder, make, order, pause, grid):
    """Fit again after each exit until the training ends; return callbacks, module and the step of each start."""
    starts = []
    for _ in range(20):
        with quiet():
            os.environ.update(LIGHTNING_GREEN_RUN_DIR=str(folder / "run"), LIGHTNING_GREEN_CLOCK=CLOCK)
            precision = GreenMixedPrecision("bf16")
            pl.seed_everything(1, verbose=False)
            mine = make()
            scheduler = CarbonScheduler(
                grid=grid, deadline=None if pause is None else "96h", on_pause=pause or "auto", hold_power=0.3,
                resume_cost=0.05, meter=300.0,
            )  # fmt: skip
            callbacks = [[*mine, scheduler][i] for i in order]
            module = Lit("adam", width=12)
            data = DataLoader(loader().dataset, 8, shuffle=True)
            t = trainer(folder, [*callbacks, Steps(starts)], plugins=[precision], enable_checkpointing=True)
            try:
                t.fit(module, data, loader(16))
            except SystemExit:
                continue
            t.save_checkpoint(folder / "end.ckpt")
            return mine, module, starts
    raise AssertionError("the training did not end within 20 fits")


def final_state(folder):
    end = torch.load(folder / "end.ckpt", weights_only=True)
    ours = {key: value for key, value in end["callbacks"].items() if key.startswith(("Pruning", "Quant", "Knowl"))}
    assert len(ours) == 3
    return {key: end[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step")} | ours


def hourly_windows():
    """Return 96 hourly values with one clean hour in six, so that the run exits in every phase of the callbacks."""
    return [40 if hour % 6 == 0 else 700 for hour in range(96)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "order"), [(masked, (3, 2, 1, 0)), pytest.param(channels, (1, 3, 2, 0), marks=needs_torch_pruning)]
)
def test_exited_and_resumed_run_ends_like_an_uninterrupted_one(tmp_path, make, order):
    grid = write_trace(tmp_path / "trace.csv", hourly_windows())
    _, _, starts = whole_run(tmp_path / "whole", make, (0, 1, 2, 3), None, grid)
    assert starts == [0]
    mine, module, starts = whole_run(tmp_path / "paused", make, order, "exit", grid)
    # Before or during pruning, and after fake quantization starts (step 11 of 18).
    assert len(starts) >= 3, starts
    assert any(0 < step < 9 for step in starts), starts
    assert any(step >= 11 for step in starts), starts
    assert_equal(final_state(tmp_path / "paused"), final_state(tmp_path / "whole"))
    converted = mine[1].convert(module)
    x = next(iter(loader(16)))[0]
    assert mine[1].agreement(converted, module, [x]).difference < 0.01


@pytest.mark.slow
def test_run_paused_in_process_ends_like_an_uninterrupted_one(tmp_path):
    grid = write_trace(tmp_path / "trace.csv", hourly_windows())
    whole_run(tmp_path / "whole", masked, (0, 1, 2, 3), None, grid)
    _, _, starts = whole_run(tmp_path / "held", masked, (2, 0, 3, 1), "hold", grid)
    assert starts == [0]
    assert_equal(final_state(tmp_path / "held"), final_state(tmp_path / "whole"))


@pytest.mark.slow
def test_order_of_the_callbacks_does_not_change_the_training(tmp_path):
    def fit(order):
        precision = GreenMixedPrecision("bf16")
        pl.seed_everything(1, verbose=False)
        mine = masked()
        module = Lit("adam")
        t = trainer(tmp_path, [mine[i] for i in order], plugins=[precision], epochs=2)
        t.fit(module, loader())
        t.save_checkpoint(tmp_path / "end.ckpt")
        weights = {
            name: tensor for name, tensor in mine[1].convert(module).state_dict().items() if tensor.dtype is torch.int8
        }
        return final_state(tmp_path), weights, module

    first, integers, module = fit((0, 1, 2))
    for order in list(itertools.permutations(range(3)))[1:]:
        again, again_integers, _ = fit(order)
        assert_equal(again, first, str(order))
        assert_equal(again_integers, integers, str(order))
    layers = [module.net.stem, module.net.block.conv1, module.net.block.conv2, module.net.fc]
    zeros = torch.cat([(layer.weight == 0).flatten() for layer in layers])
    stored = torch.cat([integers[f"{name}_weight"].flatten() for name in ("conv2d", "conv2d_1", "conv2d_2", "linear")])
    assert zeros.float().mean() > 0.55
    assert (stored[zeros] == 0).all()


class Overflows(pl.Callback):
    """Make the loss and gradients of some steps infinite, as an overflow in fp16 does."""

    def __init__(self, steps):
        self.steps = steps

    def on_before_backward(self, trainer, pl_module, loss):
        if trainer.global_step in self.steps:
            loss.data.fill_(float("inf"))

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step in self.steps:
            for parameter in pl_module.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(float("inf"))


@pytest.mark.parametrize("criterion", ["gradient", "movement", "rigl"])
def test_fp16_overflow_does_not_affect_masks(tmp_path, criterion):
    pruning = Pruning(0.6, criterion=criterion, begin=0.0, end=0.7, every_n_steps=4)
    precision = GreenMixedPrecision("fp16", init_scale=8.0)
    t = trainer(tmp_path, [pruning, Overflows({4, 12})], plugins=[precision])
    module = Lit()
    t.fit(module, loader())
    assert precision.skipped_steps == 2
    state = pruning.state_dict()["pruner"]
    assert all(torch.isfinite(score).all() for score in state["movement"].values())
    assert t.callback_metrics["pruning/sparsity"].item() == pytest.approx(0.6, abs=0.01)
    if criterion == "movement":
        assert any(score.abs().sum() > 0 for score in state["movement"].values())


@pytest.mark.parametrize("kept", ["net.fc", "net.block"])
def test_modules_kept_in_float32_stay_in_float32_in_fake_quantization(tmp_path, kept):
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 10:
                name = kept.removeprefix("net.")
                for other in ("stem", name):

                    def watch(module, args, output, other=other):
                        if type(output) is torch.Tensor:  # not a tensor of the export
                            seen.append((other, output.dtype))

                    pl_module.net.get_submodule(other).register_forward_hook(watch)

    pl.seed_everything(1, verbose=False)
    qat = QuantizationAwareTraining(begin=0.6)
    module = Lit()
    precision = GreenMixedPrecision("bf16", keep_fp32=[kept])
    trainer(tmp_path, [Watch(), qat], plugins=[precision]).fit(module, loader(), loader(16))
    assert {dtype for name, dtype in seen if name != "stem"} == {torch.float32}
    assert {dtype for name, dtype in seen if name == "stem"} == {torch.bfloat16}
    assert len(seen) > 2 * 6
    assert not torch.is_autocast_enabled("cpu")
    x = next(iter(loader(48, 48)))[0]
    assert qat.agreement(qat.convert(module), module, [x]).difference < 0.05


class Tied(Lit):
    """A layer that is used twice, and layers that share a weight."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 1)
            self.twice = nn.Linear(8, 8)
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.second.weight = self.first.weight
            self.fc = nn.Linear(8, 4)
            self.register_buffer("padding_mask", torch.ones(8))

        def forward(self, x):
            x = torch.relu(self.stem(x)).mean((2, 3)) * self.padding_mask
            x = torch.relu(self.twice(torch.relu(self.twice(x))))
            return self.fc(torch.relu(self.second(torch.relu(self.first(x)))))

    def __init__(self):
        super().__init__()
        self.net = self.Inner()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


def test_tied_weights_reused_layers_and_a_mask_buffer_are_compressed(tmp_path):
    pl.seed_everything(1, verbose=False)
    pruning, qat = Pruning(0.6, end=0.5, scope="layer"), QuantizationAwareTraining(begin=0.6)
    module = Tied()
    keys = module.state_dict().keys()
    trainer(tmp_path, [qat, KnowledgeDistillation(net()), pruning]).fit(module, loader())
    inner = module.net
    assert module.state_dict().keys() == keys
    assert inner.second.weight is inner.first.weight
    assert torch.equal(inner.padding_mask, torch.ones(8))
    assert len([name for name in pruning.method.pruner.masked.masks if "first" in name or "second" in name]) == 1
    converted = qat.convert(module)
    state = converted.state_dict()
    stored = [value for key, value in state.items() if key.endswith("_weight") and value.dtype is torch.int8]
    assert len(stored) == 6  # one copy per use, because the scales of the inputs differ
    shared = [value for value in stored if value.shape == (8, 8)]
    assert torch.equal(shared[0], shared[1])
    assert torch.equal(shared[2], shared[3])
    assert all((value == 0).float().mean() >= 0.55 for value in shared)
    x = next(iter(loader(48, 48)))[0]
    assert qat.agreement(converted, module, [x]).difference < 1e-3


def test_simulated_hour_has_six_batches():
    assert timedelta(hours=1) / timedelta(seconds=600) == 6


def test_every_hook_can_be_overridden_by_a_subclass(tmp_path):
    hooks = [name for name in dir(pl.Callback) if name.startswith("on_") or name in ("setup", "teardown")]
    called = {}

    def watched(kind):
        def override(name):
            def hook(self, *args, **kwargs):
                called[kind].add(name)
                return getattr(super(watching, self), name)(*args, **kwargs)

            return hook

        called[kind] = set()
        watching = type(f"Watched{kind.__name__}", (kind,), {name: override(name) for name in hooks})
        return watching

    pl.seed_everything(1, verbose=False)
    qat = watched(QuantizationAwareTraining)(begin=0.5)
    callbacks = [watched(Pruning)(0.6, end=0.4), qat, watched(KnowledgeDistillation)(net(), cache="memory")]
    module = Lit()
    trainer(tmp_path, callbacks, epochs=2).fit(module, loader(), loader(16))
    for kind, names in called.items():
        defined = {name for name in vars(kind) if name in hooks}
        assert defined - names <= {"on_save_checkpoint", "on_test_start", "on_predict_start", "on_exception"}, kind
    assert not any(name in vars(callback) for callback in callbacks for name in hooks)
    assert (module.net.block.conv1.weight == 0).float().mean() > 0.4
    assert qat.quantized is not None


@needs_onnx
@needs_torch_pruning
@pytest.mark.parametrize("granularity", ["unstructured", "channels"])
def test_hugging_face_classifier_is_pruned_distilled_quantized_and_exported(tmp_path, granularity):
    transformers = pytest.importorskip("transformers", reason="needs transformers")

    def bert(width):
        config = transformers.BertConfig(
            vocab_size=20, hidden_size=width, num_hidden_layers=2, num_attention_heads=2, intermediate_size=2 * width,
            max_position_embeddings=8, num_labels=3,
        )  # fmt: skip
        return transformers.BertForSequenceClassification(config)

    torch.manual_seed(0)
    module, qat = LitTokens(bert(16)), QuantizationAwareTraining(begin=0.6)
    target = {"bert.encoder.layer.*.intermediate.dense": 0.5} if granularity == "channels" else 0.5
    layers = {"bert.encoder.layer.0": "bert.encoder.layer.1"}
    callbacks = [
        qat,
        KnowledgeDistillation(bert(32), {"standardized": 1.0, "hint": 1.0}, layers=layers, channel_dim=-1),
        Pruning(target, granularity, end=0.4),
    ]
    t = trainer(tmp_path, callbacks)
    t.fit(module, sentences(), sentences(16))
    assert t.callback_metrics["pruning/sparsity"] > 0.1
    assert t.callback_metrics["distillation/standardized"] > 0
    batch = next(iter(sentences(48)))
    converted = qat.convert(module)
    logits = converted(batch["input_ids"], batch["attention_mask"])["logits"]
    predicted = torch.cat(t.predict(module, sentences(16)))  # without labels
    torch.testing.assert_close(logits, predicted, atol=1e-2, rtol=1e-2)
    assert export(converted, tmp_path / "bert.onnx", [batch]).agreement.difference < 0.05
