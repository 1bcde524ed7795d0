import pytest
import torch

from lightning_green import GreenMixedPrecision
from lightning_green.callbacks.quantization import QuantizationAwareTraining
from tests.helpers.compression_fits import fit, images


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "bf16-true"])
def test_conversion_after_training_in_half_precision(tmp_path, precision):
    callback = QuantizationAwareTraining(begin=0.3)
    module, _ = fit(tmp_path, callback, precision=precision)
    converted = callback.convert(module)
    assert callback.agreement(converted, module, [images().to(module.net.fc.weight.dtype)]).difference < 0.1


def test_ranges_stay_finite_with_fp16_loss_scaling(tmp_path):
    callback = QuantizationAwareTraining(begin=0.3)
    precision = GreenMixedPrecision("fp16", init_scale=2.0**24)
    module, _ = fit(tmp_path, callback, plugins=[precision], accumulate_grad_batches=2, epochs=4)
    assert 0 < precision.skipped_steps < 12  # the first steps overflow and are skipped
    assert all(torch.isfinite(r.observed()["range"]).all() for r in callback.quantized.roundings.values())
    assert callback.agreement(callback.convert(module), module, [images()]).difference < 0.1
