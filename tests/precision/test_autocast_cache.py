"""Reuse of the low-precision copies of the weights."""

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

from lightning_green import GreenMixedPrecision
from tests.helpers.precision_fits import Lit, Manual, distance, fit


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_cache_changes_no_bit_with_forward_passes_without_gradients(without):

    class Module(Lit):
        def training_step(self, batch, batch_idx):
            with without():
                self(batch[0])
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            self.log("val", self.loss(batch))

        val_dataloader = Lit.train_dataloader

    runs = [
        fit(GreenMixedPrecision("bf16", cache=cache), Module(), accumulate_grad_batches=4, val_check_interval=3)[0]
        for cache in (True, False)
    ]
    assert distance(*runs) == 0
    assert torch.autocast_increment_nesting() == 1  # no autocast context is left open
    torch.autocast_decrement_nesting()


def test_cache_is_not_used_for_averaged_weights():
    class Module(Lit):
        def validation_step(self, batch, batch_idx):
            seen.append(self(batch[0]).double().sum().item())

        val_dataloader = Lit.train_dataloader

    runs = []
    for cache in (True, False):
        seen = []
        average = EMAWeightAveraging(decay=0.5)
        module, _ = fit(
            GreenMixedPrecision("bf16", cache=cache),
            Module("sgd"),
            accumulate_grad_batches=4,
            val_check_interval=3,
            callbacks=[average],
        )
        runs.append((seen, module))
    assert runs[0][0] == runs[1][0]
    assert distance(runs[0][1], runs[1][1]) == 0


def test_cache_is_not_used_for_weights_changed_by_a_hook():
    class Module(Lit):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.mul_(0.9)

    runs = [
        fit(GreenMixedPrecision("bf16", cache=cache), Module("sgd"), accumulate_grad_batches=4)[0]
        for cache in (True, False)
    ]
    assert distance(*runs) == 0


def test_cache_is_cleared_after_manual_steps():
    for precision in ("bf16", "fp16"):
        runs = [fit(GreenMixedPrecision(precision, cache=cache), Manual())[0] for cache in (True, False)]
        assert distance(*runs) == 0
