import copy

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from torch import nn

from lightning_green import GreenMixedPrecision
from lightning_green.callbacks.pruning import Pruning
from lightning_green.callbacks.quantization import QuantizationAwareTraining
from tests.helpers.compression_fits import Lit, Net, SaveAt, assert_resumes_exactly, loader, trainer


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
        ({"model": ""}, "`model` should be the dotted path of a network inside"),
        ({"keep_float": ["head"], "begin": 0.2}, "`keep_float` should match something, but 'head' matches none"),
        ({"keep_float": ["*"], "begin": 0.2}, "nothing to quantize"),
        ({"begin": "2ep", "freeze": 0.5}, "`freeze` should not come before `begin`: they are steps 9 and 12"),
    ],
)
def test_arguments_that_do_not_fit_the_model_raise(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, QuantizationAwareTraining(**arguments))
