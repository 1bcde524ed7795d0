"""Hooks around the backward pass and before the step."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.plugins.precision import MixedPrecision

from lightning_green import EmissionsTracker, GreenMixedPrecision
from lightning_green.precision.choice import NAMES
from lightning_green.run.coordinator import close_current_run
from tests.helpers.precision_fits import Lit, distance, fit

HOOKS = ("on_before_backward", "on_after_backward", "on_before_optimizer_step")


class Norms:
    """Record the name of each hook that is called and the norm of the gradients."""

    def __init__(self, module):
        self.module, self.calls = module, []

    def record(self, name):
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        norm = torch.stack([g.norm() for g in gradients]).norm().item() if gradients else 0.0
        self.calls.append((name, round(norm, 3)))


def on_a_module(name):
    def hook(self, *args, **kwargs):
        self.norms.record(name)
        if name == "configure_gradient_clipping":
            self.clip_gradients(args[0], 0.05, "norm")

    return type("Module", (Lit,), {name: hook}), []


def on_a_callback(name):
    def hook(self, trainer, pl_module, *args):
        pl_module.norms.record(name)

    return Lit, [type("Watch", (pl.Callback,), {name: hook})()]


def on_a_lambda_callback(name):
    return Lit, [LambdaCallback(**{name: lambda trainer, pl_module, *args: pl_module.norms.record(name)})]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    ("where", "name"),
    [(where, name) for where in (on_a_module, on_a_callback, on_a_lambda_callback) for name in HOOKS]
    + [(on_a_module, "configure_gradient_clipping")],
)
def test_hooks_get_the_same_gradients_as_with_lightnings_plugin(precision, where, name):
    calls = []
    for plugin in (GreenMixedPrecision(precision, init_scale=1024.0), MixedPrecision(NAMES[precision], "cpu")):
        if precision == "fp16" and type(plugin) is MixedPrecision:
            plugin.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        kind, callbacks = where(name)
        module = kind("sgd")
        module.norms = Norms(module)
        clip = None if name == "configure_gradient_clipping" else 0.05
        fit(plugin, module, callbacks=callbacks, limit_train_batches=4, gradient_clip_val=clip)
        calls.append(module.norms.calls)
    ours, theirs = calls
    assert [called for called, _ in ours] == [name] * 4
    assert [norm for _, norm in ours] == pytest.approx([norm for _, norm in theirs], rel=0.02)


def test_hook_added_during_training_is_called():
    class Late(Lit):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 2:
                self.on_before_optimizer_step = lambda optimizer: self.norms.record("late")

    module = Late("adamw-fused")
    module.norms = Norms(module)
    fit(GreenMixedPrecision("fp16"), module, limit_train_batches=4, gradient_clip_val=0.05)
    assert len(module.norms.calls) == 2
    assert all(norm < 100 for _, norm in module.norms.calls)  # unscaled


def test_hooks_see_unscaled_gradients():
    class Module(Lit):
        norms = ()

        def on_before_optimizer_step(self, optimizer):
            self.norms = (*self.norms, torch.stack([p.grad.norm() for p in self.parameters()]).norm().item())

    for optimizer in ("sgd", "adamw-fused"):
        module, _ = fit(GreenMixedPrecision("fp16"), Module(optimizer), gradient_clip_val=0.05)
        assert len(module.norms) == 12
        assert max(module.norms) < 10


def test_hooks_see_unscaled_gradients_if_the_last_batch_of_a_window_has_no_loss():
    class Module(Lit):
        def __init__(self):
            super().__init__("sgd")
            self.norms = Norms(self)

        def training_step(self, batch, batch_idx):
            return None if batch_idx == 3 else super().training_step(batch, batch_idx)

        def on_before_optimizer_step(self, optimizer):
            self.norms.record("step")

    calls = []
    for precision in ("fp16", "fp32"):
        module, _ = fit(
            GreenMixedPrecision(precision, keep_fp32=["body", "body.*", "head"]), Module(), accumulate_grad_batches=2
        )
        calls.append([norm for _, norm in module.norms.calls])
    assert len(calls[0]) == 6
    assert calls[0][:2] == pytest.approx(calls[1][:2], abs=0.002)
    assert max(calls[0]) < 10


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_emissions_tracker_changes_no_bit(precision, tmp_path):
    ends = []
    for callbacks in ([], [EmissionsTracker(meter=10.0)]):
        plugin = GreenMixedPrecision(precision)
        module, _ = fit(
            plugin, Lit("adamw-fused"), gradient_clip_val=0.05, callbacks=callbacks, default_root_dir=tmp_path
        )
        ends.append(module)
    close_current_run()
    assert distance(*ends) == 0.0
