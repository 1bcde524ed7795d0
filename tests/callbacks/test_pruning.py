import copy
import csv
import logging
import sys

import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from lightning_green.callbacks.pruning import Pruning
from lightning_green.compression import load_pruned
from tests.helpers.compression_fits import (
    Lit,
    Net,
    SaveAt,
    SeededSteps,
    TwoOptimizers,
    assert_resumes_exactly,
    loader,
    trainer,
)
from tests.helpers.extras import needs_torch_pruning
from tests.helpers.keyword_networks import LitTokens, TokenClassifier, sentences


def sparsity_of(module):
    weights = [m.weight for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"target": 0.8}, 0.8),
        ({"target": 0.6, "criterion": "movement", "schedule": "linear"}, 0.6),
        ({"target": 0.6, "criterion": "gradient", "scope": "layer"}, 0.6),
        ({"target": 0.5, "criterion": "random", "begin": "1ep", "end": "2ep"}, 0.5),
        ({"target": 0.7, "criterion": "rigl"}, 0.7),
        ({"target": 0.7, "criterion": "rigl", "scope": "layer"}, 0.7),
        ({"target": 0.5, "granularity": "4x1", "schedule": "one_cycle"}, 0.5),
        ({"target": 0.9, "schedule": "constant", "begin": 0.5, "exclude": ("net.fc",)}, 0.9 * 1368 / 1400),
    ],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_target_sparsity_is_reached_and_kept(tmp_path, arguments, expected, optimizer):
    module = Lit(optimizer)
    trainer(tmp_path, [Pruning(**arguments)]).fit(module, loader())
    assert sparsity_of(module) == pytest.approx(expected, abs=0.012)
    assert not any("mask" in key and key != "causal_mask" for key in module.state_dict())


def test_two_of_four_masks_layers_and_keeps_incompatible_layers_dense(tmp_path):
    module = Lit()
    trainer(tmp_path, [Pruning(granularity="2:4")]).fit(module, loader())
    groups = module.net.block.conv1.weight.movedim(1, -1).reshape(-1, 4)
    assert ((groups == 0).sum(1) == 2).all()
    assert (module.net.stem.weight != 0).all()  # 3 input channels


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(
    "arguments",
    [
        {"target": 0.8, "every_n_steps": 3},
        {"target": 0.5, "criterion": "movement", "begin": 0.2, "every_n_steps": 2},
        {"target": 0.5, "criterion": "random", "every_n_steps": 4},
        {"target": 0.7, "criterion": "rigl", "every_n_steps": 3},
        {"granularity": "2:4", "begin": "1ep"},
        {"target": 0.5, "criterion": "gradient", "scope": "layer", "include": ("net.bn.weight",)},
    ],
)
def test_masks_resume_exactly(tmp_path, arguments):
    _, state = assert_resumes_exactly(tmp_path, lambda: [Pruning(**arguments)], steps=(1, 5, 6, 11, 15))
    assert state["callbacks"]["Pruning[masks]"]["pruner"]["masks"]


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


def test_checkpoint_is_sparse_and_loads_without_the_callback(tmp_path):
    module = Lit()
    t = trainer(tmp_path, [Pruning(0.8), SaveAt(tmp_path, (12,))])
    t.fit(module, loader())
    state = torch.load(tmp_path / "12.ckpt", weights_only=True)["state_dict"]
    plain = Lit()
    plain.load_state_dict(state)
    assert sparsity_of(plain) > 0.7
    trainer(tmp_path, []).test(Lit(), loader(16), ckpt_path=tmp_path / "12.ckpt", verbose=False)
    trainer(tmp_path, [Pruning(0.8)]).test(Lit(), loader(16), ckpt_path=tmp_path / "12.ckpt", verbose=False)


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


def logged_in(folder):
    """Return the values of each name in the table of a CSVLogger."""
    (table,) = folder.rglob("metrics.csv")
    rows = list(csv.DictReader(table.open()))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


def test_logged_sparsity_is_counted_in_the_weights(tmp_path):
    t = trainer(tmp_path, [Pruning(0.8)], logger=CSVLogger(tmp_path), log_every_n_steps=1000)
    t.fit(module := Lit(), loader())
    assert t.callback_metrics["pruning/sparsity"].item() == pytest.approx(sparsity_of(module))
    logged = logged_in(tmp_path)
    conv1 = (module.net.block.conv1.weight == 0).float().mean().item()
    assert logged["pruning/sparsity/net.block.conv1.weight"][-1] == pytest.approx(conv1)
    grown = logged["pruning/sparsity"]
    assert grown[-1] == pytest.approx(sparsity_of(module))
    assert len(set(grown)) > 3  # at each change of masks, independent of `log_every_n_steps`
    assert logged["step"] == sorted(logged["step"])
    assert logged["step"].count(17.0) == 1  # the last step, the last update of the masks and the end of the epoch


@needs_torch_pruning
def test_removed_channels_of_each_layer_are_logged(tmp_path):
    t = trainer(tmp_path, [Pruning(0.5, "channels", end=0.5)], logger=CSVLogger(tmp_path))
    t.fit(module := Lit(), loader())
    counted = sum(p.numel() for p in module.net.parameters()) / sum(p.numel() for p in Net().parameters())
    assert t.callback_metrics["pruning/sparsity"].item() == pytest.approx(1 - counted, abs=1e-6)
    layers = {name: values[-1] for name, values in logged_in(tmp_path).items() if name.startswith("pruning/sparsity/")}
    assert layers["pruning/sparsity/block.conv1"] == pytest.approx(1 - module.net.block.conv1.out_channels / 8)
    assert len(layers) == 2  # the stem's channels are those of the block's second convolution


@pytest.mark.parametrize("first", [True, False])
def test_averaged_weights_are_sparse_in_either_callback_order(tmp_path, first):
    callbacks = [Pruning(0.8, end=0.5), WeightAveraging()]
    module = Lit()
    t = trainer(tmp_path, callbacks if first else callbacks[::-1])
    t.fit(module, loader())
    assert sparsity_of(module) == pytest.approx(0.8, abs=0.01)


@needs_torch_pruning
def test_masks_and_channels_in_one_training_raise(tmp_path):
    callbacks = [Pruning(granularity="2:4", begin=0.6), Pruning(0.4, "channels", end=0.4, round_to=4)]
    with pytest.raises(ValueError, match="should not be combined with masks in one training"):
        trainer(tmp_path, callbacks).fit(Lit(width=16), loader())


def test_masks_of_a_compiled_network_and_its_deep_copy(tmp_path):
    module = Lit()
    module.net = torch.compile(module.net, backend="eager")
    pruning = Pruning(0.5)
    trainer(tmp_path, [pruning], epochs=1).fit(module, loader(16))
    assert sparsity_of(copy.deepcopy(module)) == pytest.approx(0.5, abs=0.01)
    assert all("_orig_mod" not in name for name in pruning.method.pruner.masked.masks)


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


def test_target_is_reached_in_mixed_precision(tmp_path):
    module = Lit("adam")
    trainer(tmp_path, [Pruning(0.5)], precision="bf16-mixed").fit(module, loader())
    assert sparsity_of(module) == pytest.approx(0.5, abs=0.01)


def test_manual_optimization_with_two_optimizers_counts_batches(tmp_path):
    module = TwoOptimizers()
    pruning = Pruning(0.5, end=0.5)
    trainer(tmp_path, [pruning]).fit(module, loader())
    assert sparsity_of(module) == pytest.approx(0.5, abs=0.01)
    assert pruning.update_schedule.span.end == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 1.2}, r"`target` should be a fraction in \[0, 1\), got 1.2"),
        ({"target": 1.0}, r"`target` should be a fraction in \[0, 1\)"),
        ({"target": None}, "`target` should be the fraction to prune"),
        ({"target": {}}, "`target` should name at least one pattern"),
        ({"target": 0.3, "granularity": "2:4"}, "`target` should be omitted or 0.5"),
        ({"target": 0.5, "criterion": "size"}, "`criterion` should be one of 'magnitude'"),
        ({"target": 0.5, "granularity": "channels", "criterion": "rigl"}, "`criterion` should be one of"),
        ({"target": 0.5, "granularity": "4x1", "criterion": "rigl"}, "`granularity` should be 'unstructured'"),
        ({"target": 0.5, "schedule": "cosine"}, "`schedule` should be one of"),
        ({"target": 0.5, "begin": 0.8}, "`end` should not come before `begin`"),
        ({"target": 0.5, "every_n_steps": 0}, "`every_n_steps` should be an integer of at least 1"),
        ({"target": 0.5, "scope": "model"}, "`scope` should be one of"),
        ({"target": 0.5, "granularity": "channels", "include": ["fc"]}, "`include` should be empty"),
    ],
)
def test_invalid_arguments_raise_at_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        Pruning(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 0.5, "exclude": ("net.head",)}, "`exclude` should match something, but 'net.head' matches none"),
        ({"target": {"net.bn": 0.5}}, "`target` should name parameters to prune, but 'net.bn'"),
        ({"granularity": "3:7"}, "`granularity` 3:7 fits no weight"),
        ({"target": 0.5, "begin": "9ep", "end": 0.9}, "`end` should not come before `begin`: they are steps"),
    ],
)
def test_arguments_that_do_not_fit_the_model_raise_before_training(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, [Pruning(**arguments)]).fit(Lit(), loader())


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


def test_one_callback_fits_two_modules(tmp_path):
    pruning = Pruning(0.5)
    for _ in range(2):
        module = Lit()
        t = trainer(tmp_path, [pruning], epochs=2)
        t.fit(module, loader(16))
        assert sparsity_of(module) == pytest.approx(0.5, abs=0.01)


def test_network_of_the_tests_reuses_an_activation():
    assert sum(isinstance(m, nn.ReLU) for m in Net().modules()) == 1


class ByParts(Lit):
    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net.fc(self.net.stem(batch[0]).mean((2, 3))), batch[1])


@needs_torch_pruning
def test_channels_of_a_network_that_is_not_called_as_a_whole_raise(tmp_path):
    with pytest.raises(ValueError, match="`model` should be a network that training_step calls, but Net has not been"):
        trainer(tmp_path, [Pruning(0.5, "channels", end=0.5)]).fit(ByParts(), loader())


class Late(Lit):
    def __init__(self):
        super().__init__()
        self.net = None

    def configure_model(self):
        self.net = self.net or Net()


@needs_torch_pruning
@pytest.mark.parametrize("granularity", ["unstructured", "channels"])
def test_network_that_is_built_later_raises(tmp_path, granularity):
    with pytest.raises(ValueError, match="in `__init__` and not in `configure_model`"):
        trainer(tmp_path, [Pruning(0.5, granularity)]).fit(Late(), loader())


@needs_torch_pruning
def test_channels_of_a_network_called_by_keyword_are_removed(tmp_path):
    module = LitTokens(TokenClassifier(32))
    t = trainer(tmp_path, [Pruning(0.4, "channels", end=0.5)])
    t.fit(module, sentences())
    assert module.model.encoder.out_features < 32
    assert t.callback_metrics["pruning/sparsity"] >= 0.4
    assert module.model(**next(iter(sentences()))).logits.shape == (8, 3)


class EveryOtherBatch(Lit):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.manual_backward(super().training_step(batch, batch_idx))
        if batch_idx % 2:
            self.optimizers().step()
            self.optimizers().zero_grad()


def test_schedule_counts_the_batches_of_manual_optimization(tmp_path, recwarn):
    module = EveryOtherBatch()
    trainer(tmp_path, [Pruning(0.8)]).fit(module, loader())
    assert sparsity_of(module) == pytest.approx(0.8, abs=0.012)
    assert not [one for one in recwarn if "before its schedule" in str(one.message)]


class StopsEarly(Lit):
    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.trainer.should_stop = self.trainer.global_step >= 8


def test_training_that_ends_below_its_target_warns_with_the_figures(tmp_path):
    t = trainer(tmp_path, [Pruning(0.8)], min_epochs=0, min_steps=0)
    with pytest.warns(UserWarning, match=r"ended at a sparsity of 0\.\d\d, before its schedule.*Set `total_steps=8`"):
        t.fit(StopsEarly(), loader())


def test_sparsity_does_not_fall_when_a_finished_training_gets_more_epochs(tmp_path):
    seen = []

    class Watch(Lit):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            seen.append(sparsity_of(self))

    t = trainer(tmp_path, [Pruning(0.8)])
    t.fit(Watch(), loader())
    t.save_checkpoint(tmp_path / "finished.ckpt")
    reached = seen[-1]
    seen.clear()
    trainer(tmp_path, [Pruning(0.8)], max_epochs=3 * t.max_epochs).fit(
        Watch(), loader(), ckpt_path=tmp_path / "finished.ckpt"
    )
    assert seen
    assert min(seen) == pytest.approx(reached, abs=0.005)


class Finetuned(Lit):
    def __init__(self):
        super().__init__()
        self.backbone = self.net.stem

    def configure_optimizers(self):
        return torch.optim.AdamW(p for p in self.parameters() if p.requires_grad)


@pytest.mark.parametrize("criterion", ["magnitude", "rigl", "movement"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("epoch", [1, 99])
def test_frozen_weights_are_pruned_once_they_are_trained_in_any_order(tmp_path, criterion, first, epoch):
    module, pruning = Finetuned(), Pruning(0.5, criterion=criterion, scope="layer")
    finetuning = BackboneFinetuning(unfreeze_backbone_at_epoch=epoch, lambda_func=lambda _: 1.0)
    trainer(tmp_path, [pruning, finetuning] if first else [finetuning, pruning]).fit(module, loader())
    stem, rest = (float((layer.weight == 0).float().mean()) for layer in (module.net.stem, module.net.block.conv1))
    assert stem == pytest.approx(0.5 if epoch == 1 else 0.0, abs=0.02)
    assert rest == pytest.approx(0.5, abs=0.02)
    assert pruning.sparsity(module)["pruning/sparsity"] == pytest.approx(0.5, abs=0.02)


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
