"""Hooks that somebody has written are called as Lightning calls them, wherever they were written; others are not."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.plugins.precision import MixedPrecision

from lightning_green import EmissionsTracker, GreenMixedPrecision
from lightning_green._lightning.precision import somebody_looks_at_gradients
from lightning_green.precision.choice import NAMES
from lightning_green.run.coordinator import close_current_run
from tests.precision.precision_kit import Lit, distance, fit

HOOKS = ("on_before_backward", "on_after_backward", "on_before_optimizer_step")


class Norms:
    """Writes down each call and what the gradients were, in units that tell scaled ones from others."""

    def __init__(self, module):
        self.module, self.calls = module, []

    def see(self, name):
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        norm = torch.stack([g.norm() for g in gradients]).norm().item() if gradients else 0.0
        self.calls.append((name, round(norm, 3)))


def of_a_module(name):
    def hook(self, *args, **kwargs):
        self.norms.see(name)
        if name == "configure_gradient_clipping":
            self.clip_gradients(args[0], 0.05, "norm")

    return type("Module", (Lit,), {name: hook}), []


def of_a_callback(name):
    def hook(self, trainer, pl_module, *args):
        pl_module.norms.see(name)

    return Lit, [type("Watch", (pl.Callback,), {name: hook})()]


def of_an_instance(name):
    return Lit, [LambdaCallback(**{name: lambda trainer, pl_module, *args: pl_module.norms.see(name)})]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    ("where", "name"),
    [(where, name) for where in (of_a_module, of_a_callback, of_an_instance) for name in HOOKS]
    + [(of_a_module, "configure_gradient_clipping")],
)
def test_a_hook_is_called_as_lightning_calls_it(precision, where, name):
    seen = []
    for plugin in (GreenMixedPrecision(precision, init_scale=1024.0), MixedPrecision(NAMES[precision], "cpu")):
        if precision == "fp16" and type(plugin) is MixedPrecision:
            plugin.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        kind, callbacks = where(name)
        module = kind("sgd")
        module.norms = Norms(module)
        clip = None if name == "configure_gradient_clipping" else 0.05
        fit(plugin, module, callbacks=callbacks, limit_train_batches=4, gradient_clip_val=clip)
        seen.append(module.norms.calls)
    ours, theirs = seen
    assert [called for called, _ in ours] == [name] * 4
    assert [norm for _, norm in ours] == pytest.approx([norm for _, norm in theirs], rel=0.02)


def test_a_hook_that_comes_in_the_middle_is_called():
    class Late(Lit):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 2:
                self.on_before_optimizer_step = lambda optimizer: self.norms.see("late")

    module = Late("adamw-fused")
    module.norms = Norms(module)
    fit(GreenMixedPrecision("fp16"), module, limit_train_batches=4, gradient_clip_val=0.05)
    assert len(module.norms.calls) == 2
    assert all(norm < 100 for _, norm in module.norms.calls)  # unscaled


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_callback_of_ours_changes_no_bit(precision, tmp_path):
    ends = []
    for callbacks in ([], [EmissionsTracker(meter=10.0)]):
        plugin = GreenMixedPrecision(precision)
        module, _ = fit(
            plugin, Lit("adamw-fused"), gradient_clip_val=0.05, callbacks=callbacks, default_root_dir=tmp_path
        )
        ends.append(module)
        assert not somebody_looks_at_gradients(module)
    close_current_run()
    assert distance(*ends) == 0.0
