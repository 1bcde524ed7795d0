"""Modules that compute in float32."""

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
