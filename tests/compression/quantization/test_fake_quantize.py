import pytest
import torch

from lightning_green.compression.quantization.fake_quantize import (
    ActivationFakeQuantize,
    WeightFakeQuantize,
)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_zero_is_exact_and_rounding_is_at_most_half_a_step(dtype):
    rounding = ActivationFakeQuantize(dtype)
    value = torch.linspace(-1.7, 3.1, 1001)
    rounding.observe(value)
    scale, zero_point = rounding.quantization_parameters()
    assert rounding.quant_min <= zero_point <= rounding.quant_max
    assert rounding(torch.zeros(3)).eq(0).all()
    assert (rounding(value) - value).abs().max() <= 0.5001 * scale + 1e-6
    assert len(rounding(value).unique()) == 256


def test_ranges_start_as_plain_averages_and_skip_nonfinite_batches():
    rounding = ActivationFakeQuantize(averaging=0.01)
    for high in (1.0, 2.0, 6.0):
        rounding.observe(torch.tensor([0.0, high]))
    assert rounding._range[1].item() == pytest.approx(3.0)
    rounding.observe(torch.tensor([float("inf"), 1.0]))
    assert rounding._range[1].item() == pytest.approx(3.0)


def test_gradient_passes_only_inside_the_range():
    rounding = ActivationFakeQuantize()
    rounding.observe(torch.tensor([0.0, 1.0]))
    value = torch.tensor([-0.5, 0.3, 2.0], requires_grad=True)
    rounding(value).sum().backward()
    assert value.grad.tolist() == [0.0, 1.0, 0.0]
    weight = torch.randn(4, 5, requires_grad=True)
    WeightFakeQuantize()(weight).sum().backward()
    assert weight.grad.eq(1).all()
