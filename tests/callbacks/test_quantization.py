import copy
import importlib.util

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from torch import nn
from torchmetrics import MeanMetric

from lightning_green import GreenMixedPrecision
from lightning_green.callbacks.distillation import KnowledgeDistillation
from lightning_green.callbacks.pruning import Pruning
from lightning_green.callbacks.quantization import QuantizationAwareTraining
from lightning_green.compression import export, onnx_session
from lightning_green.compression.quantization.quantized_network import QuantizedNetwork
from tests.helpers.compression_fits import Lit, Net, SaveAt, assert_equal, assert_resumes_exactly, loader, trainer
from tests.helpers.keyword_networks import LitTokens, TokenClassifier, sentences

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs the extra `compression`: onnx, onnxscript, onnxruntime",
)


def images(count=16):
    return next(iter(loader(count, count)))[0]


def fit(folder, callback, *others, module=None, **kwargs):
    torch.manual_seed(0)
    module = module or Lit()
    t = trainer(folder, [callback, *others], **kwargs)
    t.fit(module, loader())
    return module, t


def test_int8_matches_fake_quantization_and_the_module_stays_plain(tmp_path):
    callback = QuantizationAwareTraining(begin=0.5)
    module, t = fit(tmp_path, callback)
    assert t.callback_metrics["quantization/active"] == 1
    assert module.state_dict().keys() == Lit().state_dict().keys()
    assert type(module.net) is Net
    assert "forward" not in module.net.__dict__
    converted = callback.convert(module)
    weights = [v for k, v in converted.state_dict().items() if k.endswith("_weight")]
    assert {w.dtype for w in weights} == {torch.int8}
    assert len(weights) == 4
    assert callback.agreement(converted, module, [images()]).difference < 1e-3
    assert callback.agreement(module.net.eval(), module, [images()]).difference > 1e-3  # rounding changes the outputs
    assert not any("batch_norm" in str(node.target) for node in converted.graph.nodes)


@pytest.mark.parametrize("arguments", [{"begin": 0.4, "freeze": 0.7}, {"begin": "1ep", "keep_float": ["fc"]}])
def test_training_resumes_exactly_before_during_and_after_observation(tmp_path, arguments):
    _, state = assert_resumes_exactly(
        tmp_path, lambda: [QuantizationAwareTraining(**arguments)], steps=(1, 6, 7, 9, 13, 15)
    )
    ranges = state["callbacks"]["QuantizationAwareTraining"]["ranges"]
    assert all(r["count"] > 3 for r in ranges.values())


def test_training_resumes_exactly_with_accumulation_and_adam(tmp_path):
    assert_resumes_exactly(
        tmp_path,
        lambda: [QuantizationAwareTraining(begin=0.3, freeze=0.8)],
        steps=(2, 3, 5, 8),
        make_module=lambda: Lit("adam"),
        accumulate_grad_batches=2,
    )


class Counting(Callback):
    """Record whether validation runs in fake quantization, and assert that it does not change ranges."""

    def __init__(self, callback):
        self.callback, self.seen = callback, []

    def on_validation_start(self, trainer, pl_module):
        self.counts = self._counts()

    def on_validation_end(self, trainer, pl_module):
        assert self._counts() == self.counts
        self.seen.append("forward" in pl_module.net.__dict__)

    def _counts(self):
        quantized = self.callback.quantized
        return quantized and [r.count for r in quantized.roundings.values()]


def test_validation_is_quantized_and_does_not_update_ranges(tmp_path):
    callback = QuantizationAwareTraining(begin="1ep", freeze="2ep")
    watch = Counting(callback)
    torch.manual_seed(0)
    module = Lit()
    trainer(tmp_path, [watch, callback]).fit(module, loader(), loader(16))
    assert watch.seen == [False, True, True]
    assert {r.count for r in callback.quantized.roundings.values()} == {6}  # the steps of epoch 1 alone


def test_tests_are_quantized_if_the_checkpoint_is(tmp_path):
    callback = QuantizationAwareTraining(begin="1ep")
    best = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=-1, filename="{epoch}")
    torch.manual_seed(0)
    module = Lit()
    t = trainer(tmp_path, [callback, best], enable_checkpointing=True)
    t.fit(module, loader(), loader(16))
    (metrics,) = t.test(module, loader(16), ckpt_path="best", verbose=False, weights_only=True)
    assert metrics["val_loss"] == pytest.approx(best.best_model_score.item())
    x, y = next(iter(loader(16, 16)))

    def losses(name):
        state = torch.load(tmp_path / name, weights_only=True)
        plain = Lit()
        plain.load_state_dict(state["state_dict"])
        fresh = QuantizationAwareTraining(begin="1ep")
        other = Lit()
        (metrics,) = trainer(tmp_path, [fresh]).test(
            other, loader(16), ckpt_path=tmp_path / name, verbose=False, weights_only=True
        )
        floating = nn.functional.cross_entropy(plain.eval().net(x), y).item()
        return metrics["val_loss"], floating, fresh, other

    before, floating, fresh, other = losses("epoch=0.ckpt")
    assert before == pytest.approx(floating, abs=1e-6)
    with pytest.raises(ValueError, match="nothing to convert"):
        fresh.convert(other)
    after, floating, fresh, other = losses("epoch=2.ckpt")
    assert after != pytest.approx(floating, abs=1e-6)
    converted = fresh.convert(other)
    assert nn.functional.cross_entropy(converted(x), y).item() == pytest.approx(after, abs=1e-5)


def test_new_callback_converts_a_checkpoint(tmp_path):
    callback = QuantizationAwareTraining(begin=0.5)
    module, _ = fit(tmp_path, callback, SaveAt(tmp_path, (18,)))
    checkpoint = torch.load(tmp_path / "18.ckpt", weights_only=True)
    fresh, other = QuantizationAwareTraining(), Lit()
    other.load_state_dict(checkpoint["state_dict"])
    fresh.load_state_dict(checkpoint["callbacks"][fresh.state_key])
    x = images()
    assert torch.equal(fresh.convert(other)(x), callback.convert(module)(x))


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "bf16-true"])
def test_conversion_after_training_in_half_precision(tmp_path, precision):
    callback = QuantizationAwareTraining(begin=0.3)
    module, _ = fit(tmp_path, callback, precision=precision)
    converted = callback.convert(module)
    assert callback.agreement(converted, module, [images().to(module.net.fc.weight.dtype)]).difference < 0.1


def test_ranges_stay_finite_with_fp16_loss_scaling(tmp_path):
    callback = QuantizationAwareTraining(begin=0.3)
    precision = GreenMixedPrecision("fp16", init_scale=2.0**24)
    module, _ = fit(tmp_path, callback, plugins=[precision], accumulate_grad_batches=2, epochs=4)
    assert 0 < precision.skipped_steps < 12  # the first steps overflow and are skipped
    assert all(torch.isfinite(r.observed()["range"]).all() for r in callback.quantized.roundings.values())
    assert callback.agreement(callback.convert(module), module, [images()]).difference < 0.1


@pytest.mark.parametrize("first", [True, False])
def test_conversion_after_weight_averaging_in_either_callback_order(tmp_path, first):
    callback, average = QuantizationAwareTraining(begin=0.4), WeightAveraging()
    torch.manual_seed(0)
    module = Lit()
    t = trainer(tmp_path, [callback, average] if first else [average, callback])
    t.fit(module, loader(), loader(16))
    assert "forward" not in module.net.__dict__
    assert callback.agreement(callback.convert(module), module, [images()]).difference < 1e-3


@pytest.mark.parametrize("first", [True, False])
def test_pruned_weights_are_zero_in_int8_in_either_callback_order(tmp_path, first):
    callbacks = [Pruning(0.8, end=0.5, scope="layer"), QuantizationAwareTraining(begin=0.6)]
    module, t = fit(tmp_path, *(callbacks if first else callbacks[::-1]))
    order = [type(c) for c in t.callbacks if hasattr(c, "compression_order")]
    assert order == [Pruning, QuantizationAwareTraining]
    state = callbacks[1].convert(module).state_dict()
    names = ["conv2d", "conv2d_1", "conv2d_2", "linear"]
    floats = [module.net.stem, module.net.block.conv1, module.net.block.conv2, module.net.fc]
    for name, layer in zip(names, floats, strict=True):
        integers = state[f"{name}_weight"]
        assert (integers[layer.weight == 0] == 0).all()
        assert (integers == 0).float().mean() >= 0.78


@pytest.mark.parametrize("at_once", [True, False])
def test_channels_are_removed_before_quantization_begins(tmp_path, at_once):
    pytest.importorskip("torch_pruning", reason="needs the extra `compression`: torch-pruning")
    begin = 0.5 if at_once else 0.7
    callback = QuantizationAwareTraining(begin=begin)
    module, _ = fit(tmp_path, callback, Pruning(0.5, "channels", end=0.5))
    converted = callback.convert(module)
    assert converted.state_dict()["conv2d_weight"].shape[0] == module.net.stem.out_channels < 8
    with pytest.raises(ValueError, match="remove its last channels before quantization begins"):
        fit(tmp_path, QuantizationAwareTraining(begin=0.5), Pruning(0.5, "channels", end=0.8))


def test_channels_and_quantization_resume_exactly(tmp_path):
    pytest.importorskip("torch_pruning", reason="needs the extra `compression`: torch-pruning")
    assert_resumes_exactly(
        tmp_path,
        lambda: [
            QuantizationAwareTraining(begin=0.7, freeze=0.9),
            Pruning(0.5, "channels", begin=0.2, end=0.5, every_n_steps=2),
        ],
        steps=(3, 6, 9, 12, 15),
        make_module=lambda: Lit(width=12),
    )


def test_deep_copy_during_training_is_the_plain_network(tmp_path):
    class Copy(Callback):
        def on_train_end(self, trainer, pl_module):
            copied = copy.deepcopy(pl_module.net).eval()
            pl_module.net.eval()
            plain = type(pl_module.net).forward(pl_module.net, images())
            assert torch.equal(copied(images()), plain)
            assert not torch.equal(pl_module.net(images()), plain)
            with torch.no_grad():
                copied.fc.bias += 1
            assert torch.allclose(copied(images()), plain + 1)

    fit(tmp_path, QuantizationAwareTraining(begin=0.5), Copy())


def test_compiled_network_is_quantized(tmp_path):
    torch.manual_seed(0)
    module = Lit()
    module.net = torch.compile(module.net, backend="eager")
    callback = QuantizationAwareTraining(begin=0.5)
    fit(tmp_path, callback, module=module)
    assert callback.agreement(callback.convert(module), module, [images()]).difference < 1e-3
    assert module.net(images()).shape == (16, 4)


def test_quantization_begins_at_the_first_step(tmp_path):
    callback = QuantizationAwareTraining(begin=0.0, freeze=0.0)
    module, _ = fit(tmp_path, callback, epochs=1)
    callback.convert(module)
    assert {r.count for r in callback.quantized.roundings.values()} == {1}  # frozen after one observation


class Branches(Net):
    def forward(self, x):
        if x.sum() > 1e9:
            return self.fc(x.mean((2, 3)))
        return super().forward(x)


def test_export_error_contains_the_line_of_the_network(tmp_path):
    module = Lit()
    module.net = Branches()
    with pytest.raises(
        ValueError, match=r"Branches cannot be exported .*test_quantization\.py:\d+ \(`if x\.sum\(\) > 1e9"
    ):
        fit(tmp_path, QuantizationAwareTraining(begin=0.5), module=module)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"begin": 1.5}, ValueError, r"`begin` should be a fraction in \[0, 1\]"),
        ({"begin": 0.9, "freeze": 0.8}, ValueError, "`freeze` should not come before `begin`"),
        ({"weight_bits": 6}, ValueError, "`weight_bits` should be 7, 8 or None, got 6"),
        ({"activation": "int4"}, ValueError, "`activation` should be one of 'uint8', 'int8'"),
        ({"keep_float": "fc"}, TypeError, "`keep_float` should be a list of patterns"),
        ({"total_steps": 0}, ValueError, "`total_steps` should be an integer"),
    ],
)
def test_invalid_arguments_raise_at_construction(arguments, error, message):
    with pytest.raises(error, match=message):
        QuantizationAwareTraining(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "network"}, r"`model` should be the dotted path .* \(children: net\), got 'network'"),
        ({"keep_float": ["head"], "begin": 0.2}, "`keep_float` should match something, but 'head' matches none"),
        ({"keep_float": ["*"], "begin": 0.2}, "nothing to quantize"),
        ({"begin": "2ep", "freeze": 0.5}, "`freeze` should not come before `begin`: they are steps 9 and 12"),
    ],
)
def test_arguments_that_do_not_fit_the_model_raise(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, QuantizationAwareTraining(**arguments))


class ByParts(Lit):
    def training_step(self, batch, batch_idx):
        x = self.net.block(torch.relu(self.net.bn(self.net.stem(batch[0])))).mean((2, 3))
        return nn.functional.cross_entropy(self.net.fc(x), batch[1])


def test_network_that_is_not_called_as_a_whole_raises(tmp_path):
    with pytest.raises(ValueError, match="`model` should be a network that training_step calls, but Net has not been"):
        fit(tmp_path, QuantizationAwareTraining(begin=0.5), module=ByParts())


class StepsBefore(Callback):
    def __init__(self):
        self.steps = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps = trainer.global_step


class Returning(nn.Module):
    """A network whose outputs are of another type."""

    def __init__(self, wrap):
        super().__init__()
        self.fc, self.wrap = nn.Linear(192, 4), wrap

    def forward(self, x):
        return self.wrap(self.fc(x.flatten(1)))


class LitReturning(Lit):
    def __init__(self, wrap):
        super().__init__()
        self.net = Returning(wrap)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(next(iter(self.net(batch[0]))), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(
    ("make_module", "message"),
    [
        (
            lambda: LitReturning(lambda x: {x}),
            "`model` should be the dotted path of a network .* Returning cannot: .*set",
        ),
        (lambda: LitReturning(lambda x: [x, torch.float32]), "containers of tensors, got dtype"),
    ],
)
def test_unsupported_outputs_raise_before_the_first_step(tmp_path, make_module, message):
    watch = StepsBefore()
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, QuantizationAwareTraining(begin=0.9), watch, module=make_module())
    assert watch.steps == 0


class Failing(Lit):
    def training_step(self, batch, batch_idx):
        if self.global_step == 12:
            raise RuntimeError("stop")
        return super().training_step(batch, batch_idx)


def test_failed_training_leaves_the_plain_module(tmp_path):
    module, other = Failing(), KnowledgeDistillation(Net())
    with pytest.raises(RuntimeError, match="stop"):
        fit(tmp_path, QuantizationAwareTraining(begin=0.3), other, module=module)
    assert "forward" not in module.net.__dict__
    assert "training_step" not in module.__dict__
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_export_error_is_raised_before_the_first_step(tmp_path):
    module, watch = Lit(), StepsBefore()
    module.net = Branches()
    with pytest.raises(ValueError, match="Branches cannot be exported"):
        fit(tmp_path, QuantizationAwareTraining(begin=0.9), watch, module=module)
    assert watch.steps == 0


def test_check_before_the_first_step_does_not_change_the_training(tmp_path):
    states = []
    for callback in (Callback(), QuantizationAwareTraining(begin=1.0, freeze=1.0)):
        torch.manual_seed(0)
        module, _ = fit(tmp_path, callback, module=Lit("adam"))
        states.append(module.state_dict() | {"rng": torch.get_rng_state()})
    assert_equal(*states)


@pytest.mark.parametrize("returns", ["model_output", "dataclass", "dict", "tuple"])
def test_network_called_by_keyword_with_labels_is_quantized(tmp_path, returns):
    torch.manual_seed(0)
    callback, module = QuantizationAwareTraining(begin=0.3), LitTokens(TokenClassifier(returns=returns))
    t = trainer(tmp_path, [callback])
    t.fit(module, sentences(), sentences(16))
    expected = TokenClassifier(returns=returns)(**next(iter(sentences(4))))
    output = module.model(**next(iter(sentences(4))))
    assert type(output) is type(expected)
    assert len(output) == 2 if isinstance(output, (tuple, dict)) else output.loss.dim() == 0
    converted = callback.convert(module)
    batch = next(iter(sentences(16)))
    assert callback.agreement(converted, module, batch).difference < 1e-3
    assert callback.agreement(module.model.eval(), module, batch).difference > 1e-3
    logits = converted(batch["input_ids"], batch["attention_mask"])
    assert (list(logits) if isinstance(logits, dict) else len(logits)) == (1 if returns == "tuple" else ["logits"])
    assert "labels" not in converted.code
    assert sum(value.dtype is torch.int8 for value in converted.state_dict().values()) == 2


def test_calls_without_labels_have_the_same_ranges(tmp_path):
    torch.manual_seed(0)
    callback, module = QuantizationAwareTraining(begin=0.3), LitTokens(TokenClassifier())
    t = trainer(tmp_path, [callback])
    t.fit(module, sentences())
    ranges = callback.quantized.state_dict()
    predicted = torch.cat(t.predict(module, sentences(16)))
    assert_equal(callback.quantized.state_dict(), ranges)
    batch = next(iter(sentences(48)))
    logits = callback.convert(module)(batch["input_ids"], batch["attention_mask"])["logits"]
    torch.testing.assert_close(predicted, logits, atol=1e-3, rtol=1e-3)


def test_loss_in_the_network_is_not_rounded(tmp_path):
    torch.manual_seed(0)
    module = LitTokens(TokenClassifier())
    batch = next(iter(sentences(8)))
    quantized = QuantizedNetwork(module.model, batch)
    output = quantized.compute(batch)
    expected = nn.functional.cross_entropy(output.logits, batch["labels"])
    torch.testing.assert_close(output.loss, expected)
    unlabeled = {name: batch[name] for name in ("input_ids", "attention_mask")}
    assert quantized.compute(unlabeled, training=False).loss is None
    torch.testing.assert_close(
        quantized.compute(unlabeled, training=False).logits, quantized.compute(batch, training=False).logits
    )


def test_keyword_calls_resume_exactly(tmp_path):
    torch.manual_seed(0)

    def run(ckpt=None, save=()):
        torch.manual_seed(0)
        model = TokenClassifier()
        model.dropout.p = 0.0
        module, callback = LitTokens(model), QuantizationAwareTraining(begin=0.4, freeze=0.7)
        t = trainer(tmp_path, [callback, SaveAt(tmp_path, save)])
        t.fit(module, sentences(), ckpt_path=ckpt, weights_only=True if ckpt else None)
        return module.state_dict(), callback.state_dict()

    whole = run(save=(6, 12))
    for step in (6, 12):
        assert_equal(run(tmp_path / f"{step}.ckpt"), whole)


@needs_onnx
def test_network_called_by_keyword_is_exported(tmp_path):
    torch.manual_seed(0)
    callback, module = QuantizationAwareTraining(begin=0.3), LitTokens(TokenClassifier())
    trainer(tmp_path, [callback]).fit(module, sentences())
    batch = next(iter(sentences(16)))
    for inputs in ((), [batch], [(batch["input_ids"], batch["attention_mask"])]):
        written = export(callback.convert(module), tmp_path / "int8.onnx", inputs)
        assert written.agreement.difference < 0.01
    names = [value.name for value in onnx_session(tmp_path / "int8.onnx").get_inputs()]
    assert names == ["input_ids", "attention_mask"]


class Whole(pl.LightningModule):
    """Layers directly in the LightningModule, which is the network."""

    def __init__(self, width=16):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.hidden, self.head = nn.Linear(width, width), nn.Linear(width, 4)
        self.accuracy = MeanMetric()

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x))).mean((2, 3))
        return self.head(torch.relu(self.hidden(x)))

    def training_step(self, batch, batch_idx):
        output = self(batch[0])
        self.accuracy.update((output.argmax(1) == batch[1]).float())
        self.log("accuracy", self.accuracy)
        return nn.functional.cross_entropy(output, batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


def test_module_that_is_the_network_is_quantized(tmp_path):
    callback = QuantizationAwareTraining(begin=0.4, model="")
    module, t = fit(tmp_path, callback, module=Whole())
    assert t.callback_metrics["quantization/active"] == 1
    assert "forward" not in module.__dict__
    assert module.state_dict().keys() == Whole().state_dict().keys()
    converted = callback.convert(module)
    assert isinstance(converted, torch.fx.GraphModule)
    assert not isinstance(converted, pl.LightningModule)
    assert sum(value.dtype is torch.int8 for value in converted.state_dict().values()) == 3
    assert callback.agreement(converted, module, [images()]).difference < 1e-3
    assert callback.agreement(module.eval(), module, [images()]).difference > 1e-3


def test_module_that_is_the_network_resumes_exactly(tmp_path):
    assert_resumes_exactly(
        tmp_path,
        lambda: [QuantizationAwareTraining(begin=0.4, freeze=0.7, model="")],
        steps=(3, 9, 15),
        make_module=Whole,
    )


@needs_onnx
def test_module_that_is_the_network_is_pruned_distilled_quantized_and_exported(tmp_path):
    pytest.importorskip("torch_pruning", reason="needs the extra `compression`: torch-pruning")
    qat = QuantizationAwareTraining(begin=0.6, model="")
    others = [Pruning(0.5, "channels", end=0.4, model=""), KnowledgeDistillation(Whole(24), model="")]
    module, t = fit(tmp_path, qat, *others, module=Whole())
    assert t.callback_metrics["pruning/sparsity"] >= 0.5
    assert module.stem.out_channels < 16
    assert t.callback_metrics["distillation/standardized"] > 0
    written = export(qat.convert(module), tmp_path / "whole.onnx", [images()])
    assert written.agreement.difference < 0.05


def test_callback_is_reused_for_a_second_module(tmp_path):
    callback, states = QuantizationAwareTraining(begin=0.3, model=""), []
    for _ in range(2):
        torch.manual_seed(3)
        module, _ = fit(tmp_path, callback, module=Whole())
        states.append(dict(module.state_dict()))
        callback.convert(module)
    assert_equal(*states)
