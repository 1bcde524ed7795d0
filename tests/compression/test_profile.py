import pytest
import torch
from torch import nn

from lightning_green.compression import profile
from tests.helpers.compression_networks import SmallResNet, count


def test_profile_counts_multiply_adds():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Flatten(), nn.Linear(128, 5)
    )
    result = profile(model, torch.randn(4, 3, 8, 8))
    assert result.layers == {"0": 16 * 8 * 27, "2": 16 * 8 * 9, "4": 128 * 5}
    assert result.macs == sum(result.layers.values())
    assert result.parameters == count(model)
    assert result.weight_bytes == 4 * count(model)
    assert result.activations == 3 * 16 * 8 + 128 + 5
    assert model.training


def test_profile_counts_transposed_convolutions_and_reused_layers():
    layer = nn.ConvTranspose2d(4, 6, 2, 2)
    assert profile(layer, torch.randn(1, 4, 5, 5)).macs == 25 * 4 * 6 * 4
    shared = nn.Linear(7, 7)
    assert profile(nn.Sequential(shared, shared), torch.randn(2, 7)).macs == 98


def test_predicted_joules_decrease_with_bits_and_reject_other_widths():
    result = profile(SmallResNet(), torch.randn(1, 3, 16, 16))
    assert 0 < result.predicted_joules(8) < 0.3 * result.predicted_joules(32)
    with pytest.raises(ValueError, match="`bits` should be 8 or 32"):
        result.predicted_joules(4)
