"""Several optimizer steps per update of the scale."""

import pytest
import torch
from torch import nn

from lightning_green import GreenMixedPrecision
from lightning_green.precision.loss_scaler import LossScaler
from tests.helpers.precision_fits import Manual, distance, fit


def test_manual_optimization_updates_the_scale_once_per_training_step():
    plugin = GreenMixedPrecision("fp16", keep_fp32=["body", "head"], growth_interval=3)
    module, _ = fit(plugin, Manual({4}))
    assert module.scales == [65536.0] * 3 + [131072.0] * 2 + [65536.0] * 3 + [131072.0] * 3 + [262144.0]
    assert plugin.skipped_steps == 1
    plain, _ = fit(GreenMixedPrecision("fp32"), Manual())
    same, _ = fit(GreenMixedPrecision("fp16", keep_fp32=["body", "head"]), Manual())
    assert distance(plain, same) < 1e-5


def test_optimizer_may_step_twice_and_without_gradients_before_an_update():
    weight, unused = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer, idle = torch.optim.SGD([weight], 0.1), torch.optim.SGD([unused], 0.1)
    scaler = LossScaler("cpu", init_scale=4.0)
    for factor in (1.0, float("inf")):
        optimizer.zero_grad()
        scaler.scale((weight * factor).sum()).backward()
        scaler.step(optimizer)
    scaler.step(idle)
    assert scaler.has_steps
    scaler.update()
    assert (scaler.overflow.item(), scaler.get_scale(), scaler.has_steps) == (1.0, 2.0, False)
    assert (weight.item(), unused.item()) == (pytest.approx(0.9), 1.0)


def test_step_before_a_scaled_loss_raises():
    with pytest.raises(RuntimeError, match="steps before any loss was scaled"):
        LossScaler("cpu").step(torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1))
