import copy
import logging

import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lightning_green.callbacks.pruning import Pruning
from tests.helpers.compression_fits import (
    Lit,
    Net,
    SaveAt,
    TwoOptimizers,
    assert_resumes_exactly,
    loader,
    logged_in,
    trainer,
)
from tests.helpers.extras import needs_torch_pruning


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


def test_two_of_four_masks_layers_and_keeps_incompatible_layers_dense(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)
    module, pruning = Lit(), Pruning(granularity="2:4")
    with caplog.at_level("INFO"):
        trainer(tmp_path, [pruning]).fit(module, loader())
    groups = module.net.block.conv1.weight.movedim(1, -1).reshape(-1, 4)
    assert ((groups == 0).sum(1) == 2).all()
    assert (module.net.stem.weight != 0).all()  # 3 input channels
    counted = pruning.sparsity(module)
    assert counted["pruning/sparsity/net.stem.weight"] == 0
    assert counted["pruning/sparsity"] == pytest.approx(sparsity_of(module))  # of all that was named, not of the pruned
    left = "`Pruning` leaves 1 of 4 weights as they are: `net.stem.weight` (no multiple of 4 input channels)."
    assert left in caplog.text


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


def test_one_callback_fits_two_modules(tmp_path):
    pruning = Pruning(0.5)
    for _ in range(2):
        module = Lit()
        t = trainer(tmp_path, [pruning], epochs=2)
        t.fit(module, loader(16))
        assert sparsity_of(module) == pytest.approx(0.5, abs=0.01)


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
    assert pruning.sparsity(module)["pruning/sparsity"] == pytest.approx(sparsity_of(module))  # frozen weights count


class Averaged(Lit):
    """Keeps a moving average of its network, a teacher with the same parameters, and the first weights of both."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.ema = AveragedModel(self.net) if kind == "AveragedModel" else copy.deepcopy(self.net)
        self.ema.requires_grad_(kind != "frozen copy")
        self.teacher = copy.deepcopy(self.net).requires_grad_(False)
        self.first = copy.deepcopy(self.net.state_dict())

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        if isinstance(self.ema, AveragedModel):
            self.ema.update_parameters(self.net)
        else:
            with torch.no_grad():
                for average, p in zip(self.ema.parameters(), self.net.parameters(), strict=True):
                    target = average.data if self.kind == "data" else average
                    target.lerp_(p.data, 0.1)


@pytest.mark.parametrize("kind", ["frozen copy", "copy", "data", "AveragedModel"])
def test_moving_average_inside_the_module_is_masked_alike_and_a_teacher_is_not(tmp_path, kind):
    module, pruning = Averaged(kind), Pruning(0.8, end=0.5)
    trainer(tmp_path, [pruning]).fit(module, loader())
    assert sparsity_of(module.net) == pytest.approx(0.8, abs=0.012)
    assert sparsity_of(module.ema) == pytest.approx(0.8, abs=0.012)
    assert all(torch.equal(value, module.first[name]) for name, value in module.teacher.state_dict().items())
    assert pruning.sparsity(module)["pruning/sparsity"] == pytest.approx(sparsity_of(module.net))


def test_masks_with_a_moving_average_resume_exactly(tmp_path):
    assert_resumes_exactly(
        tmp_path, lambda: [Pruning(0.8, every_n_steps=3)], steps=(5, 11), make_module=lambda: Averaged("copy")
    )


def test_stochastic_weight_averaging_ends_sparse(tmp_path):
    module = Lit()
    averaging = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
    trainer(tmp_path, [Pruning(0.8, end=0.9), averaging], epochs=4).fit(module, loader())
    assert sparsity_of(module) == pytest.approx(0.8, abs=0.012)
