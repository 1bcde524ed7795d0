import copy

import pytest
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging

from lightning_green.callbacks.distillation import KnowledgeDistillation
from lightning_green.callbacks.quantization import QuantizationAwareTraining
from tests.helpers.compression_fits import (
    Lit,
    Net,
    SaveAt,
    assert_equal,
    assert_resumes_exactly,
    fit,
    images,
    loader,
    trainer,
)
from tests.helpers.keyword_networks import LitTokens, TokenClassifier, sentences


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


class FrozenNorm(Lit):
    """Puts its batch norm into evaluation mode and lowers its dropout in the second epoch, as fine-tuning does."""

    def on_train_batch_start(self, batch, batch_idx):
        late = self.current_epoch >= 1
        self.net.bn.train(not late)
        self.net.dropout.p = 0.05 if late else 0.1


def test_training_with_a_frozen_batch_norm_resumes_exactly(tmp_path):
    module, _ = assert_resumes_exactly(
        tmp_path,
        lambda: [QuantizationAwareTraining(begin=0.2, freeze=0.8)],
        steps=(4, 6, 7, 13),
        make_module=FrozenNorm,
    )
    assert module.net.bn.num_batches_tracked == 6  # of the first epoch


def test_new_callback_converts_a_checkpoint(tmp_path):
    callback = QuantizationAwareTraining(begin=0.5)
    module, _ = fit(tmp_path, callback, SaveAt(tmp_path, (18,)))
    checkpoint = torch.load(tmp_path / "18.ckpt", weights_only=True)
    fresh, other = QuantizationAwareTraining(), Lit()
    other.load_state_dict(checkpoint["state_dict"])
    fresh.load_state_dict(checkpoint["callbacks"][fresh.state_key])
    x = images()
    assert torch.equal(fresh.convert(other)(x), callback.convert(module)(x))


@pytest.mark.parametrize("first", [True, False])
def test_conversion_after_weight_averaging_in_either_callback_order(tmp_path, first):
    callback, average = QuantizationAwareTraining(begin=0.4), WeightAveraging()
    torch.manual_seed(0)
    module = Lit()
    t = trainer(tmp_path, [callback, average] if first else [average, callback])
    t.fit(module, loader(), loader(16))
    assert "forward" not in module.net.__dict__
    assert callback.agreement(callback.convert(module), module, [images()]).difference < 1e-3


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


@pytest.mark.parametrize(("make", "data"), [(Lit, loader), (lambda: LitTokens(TokenClassifier()), sentences)])
def test_quantization_begins_at_the_first_step_after_the_sanity_check(tmp_path, make, data):
    torch.manual_seed(0)
    module, callback = make(), QuantizationAwareTraining(begin=0.0, freeze=0.0)
    t = trainer(tmp_path, [callback], epochs=1, num_sanity_val_steps=2)
    t.fit(module, data(), data(batch=16))
    t.save_checkpoint(tmp_path / "end.ckpt")
    state = torch.load(tmp_path / "end.ckpt", weights_only=True)["callbacks"][callback.state_key]
    assert all(type(size) is int for shape, *_ in state["inputs"]["leaves"] for size in shape)
    assert {r["count"] for r in state["ranges"].values()} == {1}


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


def test_check_before_the_first_step_does_not_change_the_training(tmp_path):
    states = []
    for callback in (Callback(), QuantizationAwareTraining(begin=1.0, freeze=1.0)):
        torch.manual_seed(0)
        module, _ = fit(tmp_path, callback, module=Lit("adam"))
        states.append(module.state_dict() | {"rng": torch.get_rng_state()})
    assert_equal(*states)
