"""Removal of channels during a training."""

import copy
import logging
import sys

import pytest
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from lightning_green.callbacks.pruning import Pruning
from lightning_green.compression import load_pruned
from tests.helpers.compression_fits import (
    Lit,
    Net,
    SaveAt,
    SeededSteps,
    StepsBefore,
    assert_resumes_exactly,
    loader,
    logged_in,
    trainer,
)
from tests.helpers.extras import needs_torch_pruning
from tests.helpers.keyword_networks import LitTokens, TokenClassifier, sentences


@needs_torch_pruning
@pytest.mark.parametrize("accumulate", [1, 2])
def test_channels_resume_exactly_before_between_and_after_updates(tmp_path, accumulate):
    module, state = assert_resumes_exactly(
        tmp_path,
        lambda: [Pruning(0.5, "channels", begin=0.2, end=0.6, every_n_steps=2)],
        steps=(2, 3, 4, 6, 8) if accumulate == 2 else (3, 4, 6, 11, 13),
        make_module=lambda: Lit("adam", width=12),
        accumulate_grad_batches=accumulate,
    )
    assert sum(p.numel() for p in module.parameters()) < 0.55 * sum(p.numel() for p in Lit(width=12).parameters())
    fresh = Lit(width=12)
    load_pruned(fresh, state["state_dict"])
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(fresh.eval().net(x), module.eval().net(x))


@needs_torch_pruning
def test_random_channels_resume_exactly(tmp_path):
    assert_resumes_exactly(
        tmp_path,
        lambda: [Pruning(0.4, "channels", criterion="random", begin=0.0, end=0.5, every_n_steps=3)],
        steps=(1, 3, 7),
    )


@needs_torch_pruning
def test_narrow_model_tests_wider_checkpoints_in_the_same_process(tmp_path):
    module = Lit()
    pruning = Pruning(0.5, "channels", begin=0.5, end=0.9)
    t = trainer(tmp_path, [pruning, SaveAt(tmp_path, (3, 12))])
    t.fit(module, loader())
    for name in (3, 12):
        (metrics,) = t.test(module, loader(16), ckpt_path=tmp_path / f"{name}.ckpt", verbose=False, weights_only=True)
        plain = load_pruned(Lit(), tmp_path / f"{name}.ckpt").eval()
        x, y = next(iter(loader(16, 16)))
        assert metrics["val_loss"] == pytest.approx(nn.functional.cross_entropy(plain.net(x), y).item(), abs=1e-5)


@needs_torch_pruning
def test_removed_channels_of_each_layer_are_logged(tmp_path):
    t = trainer(tmp_path, [Pruning(0.5, "channels", end=0.5)], logger=CSVLogger(tmp_path))
    t.fit(module := Lit(), loader())
    counted = sum(p.numel() for p in module.net.parameters()) / sum(p.numel() for p in Net().parameters())
    assert t.callback_metrics["pruning/sparsity"].item() == pytest.approx(1 - counted, abs=1e-6)
    layers = {name: values[-1] for name, values in logged_in(tmp_path).items() if name.startswith("pruning/sparsity/")}
    assert layers["pruning/sparsity/block.conv1"] == pytest.approx(1 - module.net.block.conv1.out_channels / 8)
    assert len(layers) == 2  # the stem's channels are those of the block's second convolution


@needs_torch_pruning
def test_channels_of_a_compiled_network_match_the_plain_one(tmp_path):
    torch.manual_seed(0)
    plain, compiled = Lit(), Lit()
    compiled.load_state_dict(plain.state_dict())
    compiled.net = torch.compile(compiled.net, backend="eager")
    for module in (plain, compiled):
        torch.manual_seed(1)
        trainer(tmp_path, [Pruning(0.5, "channels", begin=0.2, end=0.6), SeededSteps()]).fit(module, loader())
    net = compiled.net._orig_mod
    assert net.stem.out_channels == plain.net.stem.out_channels < 8
    for key, value in net.state_dict().items():
        assert torch.allclose(value.float(), plain.net.state_dict()[key].float(), atol=1e-5), key


@needs_torch_pruning
def test_channels_raise_without_the_extra_and_under_ddp(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="should train on one device, got DDPStrategy with 2 processes"):
        Pruning(0.5, "channels").setup(trainer(tmp_path, [], strategy="ddp", devices=2), Lit(), "fit")
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ModuleNotFoundError, match=r"lightning-green\[compression\]"):
        Pruning(0.5, "channels")


@needs_torch_pruning
def test_checkpoint_of_another_model_is_not_resized(tmp_path):
    trainer(tmp_path, [SaveAt(tmp_path, (2,))], epochs=1).fit(Lit(width=16), loader())
    with pytest.raises(RuntimeError, match="size mismatch"):
        trainer(tmp_path, [Pruning(0.5, "channels")]).fit(Lit(width=8), loader(), ckpt_path=tmp_path / "2.ckpt")


def test_network_of_the_tests_reuses_an_activation():
    assert sum(isinstance(m, nn.ReLU) for m in Net().modules()) == 1


class ByParts(Lit):
    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net.fc(self.net.stem(batch[0]).mean((2, 3))), batch[1])


@needs_torch_pruning
def test_channels_of_a_network_that_is_not_called_as_a_whole_raise(tmp_path):
    with pytest.raises(ValueError, match="`model` should be a network that training_step calls, but Net has not been"):
        trainer(tmp_path, [Pruning(0.5, "channels", end=0.5)]).fit(ByParts(), loader())


@needs_torch_pruning
def test_channels_of_a_network_called_by_keyword_are_removed(tmp_path):
    module = LitTokens(TokenClassifier(32))
    t = trainer(tmp_path, [Pruning(0.4, "channels", end=0.5)])
    t.fit(module, sentences())
    assert module.model.encoder.out_features < 32
    assert t.callback_metrics["pruning/sparsity"] >= 0.4
    assert module.model(**next(iter(sentences()))).logits.shape == (8, 3)


class PlainOptimizer(Lit):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


class CountSteps(Lit):
    steps = 0

    def on_before_zero_grad(self, optimizer):
        self.steps += self.trainer.global_step > 0


@needs_torch_pruning
def test_channels_that_can_never_reach_the_target_raise_before_the_first_step(tmp_path):
    module = CountSteps()
    with pytest.raises(ValueError, match=r"`target` 0\.999 cannot be reached"):
        trainer(tmp_path, [Pruning(0.999, "channels", begin=0.9, end=0.9)]).fit(module, loader())
    assert module.trainer.global_step == module.steps == 0


@needs_torch_pruning
def test_layers_that_keep_their_channels_are_named_once_at_the_start(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("lightning"), "propagate", True)
    module = PlainOptimizer()
    nn.utils.parametrizations.weight_norm(module.net.stem)
    with caplog.at_level(logging.INFO):
        trainer(tmp_path, [Pruning(0.2, "channels", end=0.5)]).fit(module, loader())
    found = [record.message for record in caplog.records if "`Pruning` leaves" in record.message]
    assert len(found) == 1
    assert "as they are" in found[0]
    assert "the weight of `stem` is computed from others" in found[0]
    assert module.net.stem.out_channels == 8
    assert module.net.block.conv1.out_channels < 8


@needs_torch_pruning
def test_test_of_another_module_keeps_the_removed_channels(tmp_path):
    callback, module = Pruning(0.5, "channels", end=0.5), Lit()
    t = trainer(tmp_path, [callback])
    t.fit(module, loader())
    state, sparsity = copy.deepcopy(callback.state_dict()), callback.method.sparsity(module)
    assert sparsity[""] >= 0.5
    t.test(Lit(), loader(16), verbose=False)
    assert str(callback.state_dict()) == str(state)
    assert callback.method.sparsity(module) == sparsity


class Averaged(Lit):
    """Keeps a moving average of its network, or a teacher with the same parameters."""

    def __init__(self, updates=True):
        super().__init__()
        self.average, self.updates = copy.deepcopy(self.net).requires_grad_(False), updates

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.updates:
            for average, p in zip(self.average.parameters(), self.net.parameters(), strict=True):
                average.data.lerp_(p.data, 0.1)


@needs_torch_pruning
def test_channels_beside_a_moving_average_are_refused_before_anything_is_removed(tmp_path):
    counter = StepsBefore()
    pruning = Pruning(0.3, granularity="channels", model="net", begin=0.5)
    with pytest.raises(ValueError, match=r"copy of the weights that is updated.*`average` would keep all channels"):
        trainer(tmp_path, [pruning, counter]).fit(Averaged(), loader())
    assert counter.steps == 1


@needs_torch_pruning
def test_channels_beside_a_moving_average_of_a_callback_are_refused(tmp_path):
    average = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
    with pytest.raises(ValueError, match=r"`StochasticWeightAveraging\._average_model` would keep all channels"):
        trainer(tmp_path, [Pruning(0.3, granularity="channels", begin=0.9, end=1.0), average]).fit(Lit(), loader())


@needs_torch_pruning
def test_channels_beside_a_teacher_of_the_same_kind_are_removed(tmp_path):
    module = Averaged(updates=False)
    trainer(tmp_path, [Pruning(0.3, granularity="channels", model="net")]).fit(module, loader())
    assert sum(p.numel() for p in module.net.parameters()) < 0.75 * sum(p.numel() for p in module.average.parameters())
