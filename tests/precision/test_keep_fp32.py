"""Modules that compute in float32."""

import warnings

import pytest
import torch
from torch import nn
from torch._functorch import config as functorch_config
from torch.utils.checkpoint import checkpoint

from lightning_green import GreenMixedPrecision
from tests.helpers.precision_fits import Lit, distance, fit, trainer


def test_kept_modules_compute_in_float32_when_compiled_or_checkpointed():
    seen = {}

    class Module(Lit):
        def forward(self, x):
            x = checkpoint(self.body, x, use_reentrant=False)
            seen["body"] = x.dtype
            x = self.head(x)
            seen["head"] = x.dtype
            return x

    for accumulation in (1, 4):
        fit(
            GreenMixedPrecision("bf16", keep_fp32=["head", nn.LayerNorm]),
            Module(),
            accumulate_grad_batches=accumulation,
        )
        assert seen["head"] is torch.float32
    module = Module()
    module.head = torch.compile(module.head, backend="aot_eager")
    fit(GreenMixedPrecision("bf16", keep_fp32=["head"]), module, limit_train_batches=2)
    assert seen["head"] is torch.float32


@pytest.mark.sampled
@pytest.mark.parametrize("keep", [[], ["head"]])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_compiled_module_trains_bitwise_equal_to_eager(keep, accumulation):
    options = {"accumulate_grad_batches": accumulation, "limit_train_batches": 8}
    plain, _ = fit(GreenMixedPrecision("bf16", keep_fp32=keep), **options)
    module = Lit()
    torch._dynamo.reset()  # code compiled without the hooks would be reused
    trainer(GreenMixedPrecision("bf16", keep_fp32=keep), **options).fit(torch.compile(module, backend="aot_eager"))
    assert distance(module, plain) == 0
    assert functorch_config.backward_pass_autocast == "same_as_forward"


def test_pattern_without_a_match_raises():
    with pytest.raises(ValueError, match="'tail' matches no module of Lit; its modules are body"):
        fit(GreenMixedPrecision("bf16", keep_fp32=["tail"]))


def test_hooks_are_removed_after_the_fit():
    module, _ = fit(GreenMixedPrecision("bf16", keep_fp32=["head"]), limit_train_batches=1)
    assert not module.head._forward_pre_hooks
    assert not module.head._forward_hooks


class Reads(Lit):
    """Uses the weights of a module without a call of it."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Linear(4, 4)

    def forward(self, x):
        return nn.functional.linear(super().forward(x), self.scores.weight)


@pytest.mark.parametrize("compiled", [False, True])
def test_module_that_is_never_called_is_named_after_the_first_step(compiled):
    torch._dynamo.reset()
    module, fits = Reads(), trainer(GreenMixedPrecision("bf16", keep_fp32=["head", "scores"]), limit_train_batches=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fits.fit(torch.compile(module, backend="aot_eager") if compiled else module)
    found = [str(one.message) for one in caught if "keep_fp32" in str(one.message)]
    assert len(found) == 1
    assert found[0].startswith("`keep_fp32` has had no effect on `scores`: until the first step")


def test_plugin_starts_afresh_in_another_training():
    plugin = GreenMixedPrecision("fp16", max_consecutive_skips=1, init_scale=2.0**12)
    trainer(plugin, limit_train_batches=3).fit(Lit(overflow=[1]))
    assert plugin.fell_back_from == "16-mixed"
    assert plugin.skipped_steps == 1
    trainer(plugin, limit_train_batches=3).fit(Lit())
    assert plugin.fell_back_from is None
    assert plugin.skipped_steps == 0
    assert plugin.precision == "16-mixed"
