"""Manual optimisation: one update of the scale a training step."""

import torch
from torch import nn

from lightning_green import GreenMixedPrecision
from tests.precision.precision_kit import Lit, distance, fit


class Manual(Lit):
    """Two optimizers that share one backward, then a second step of the first."""

    def __init__(self, overflow=()):
        super().__init__("sgd", overflow)
        self.automatic_optimization = False
        self.scales = []

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        first.zero_grad()
        second.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(first, 0.05, "norm")
        first.step()
        second.step()
        first.zero_grad()
        self.manual_backward(self.loss(batch))
        first.step()
        if self.trainer.precision_plugin.scaler is not None:
            self.scales.append(self.trainer.precision_plugin.scaler.get_scale())

    def configure_optimizers(self):
        body, head = self.body.parameters(), self.head.parameters()
        return torch.optim.SGD(body, 0.05), torch.optim.SGD([*head, nn.Parameter(torch.zeros(1))], 0.05)


def test_manual_optimization_updates_the_scale_once_a_training_step():
    plugin = GreenMixedPrecision("fp16", keep_fp32=["body", "head"], growth_interval=3)
    module, _ = fit(plugin, Manual({4}))
    assert module.scales == [65536.0] * 3 + [131072.0] * 2 + [65536.0] * 3 + [131072.0] * 3 + [262144.0]
    assert plugin.skipped_steps == 1
    plain, _ = fit(GreenMixedPrecision("fp32"), Manual())
    same, _ = fit(GreenMixedPrecision("fp16", keep_fp32=["body", "head"]), Manual())
    assert distance(plain, same) < 1e-5


def test_the_cache_sees_the_steps_of_manual_optimization():
    for precision in ("bf16", "fp16"):
        runs = [fit(GreenMixedPrecision(precision, cache=cache), Manual())[0] for cache in (True, False)]
        assert distance(*runs) == 0
