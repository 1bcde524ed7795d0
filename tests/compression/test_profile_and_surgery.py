import pytest
import torch
from torch import nn

from lightning_green.compression import compound_scale, depthwise_separable, profile
from tests.compression.networks import Mixed, SmallResNet, count


def test_multiply_adds_by_hand():
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


def test_transposed_convolutions_and_layers_used_twice():
    layer = nn.ConvTranspose2d(4, 6, 2, 2)
    assert profile(layer, torch.randn(1, 4, 5, 5)).macs == 25 * 4 * 6 * 4
    shared = nn.Linear(7, 7)
    assert profile(nn.Sequential(shared, shared), torch.randn(2, 7)).macs == 98


def test_predicted_energy_falls_with_bits_and_is_refused_for_others():
    result = profile(SmallResNet(), torch.randn(1, 3, 16, 16))
    assert 0 < result.predicted_joules(8) < 0.3 * result.predicted_joules(32)
    with pytest.raises(ValueError, match="`bits` should be 8 or 32"):
        result.predicted_joules(4)


def test_separable_convolutions_have_the_same_shapes_and_cost_less():
    model = SmallResNet(width=16)
    x = torch.randn(2, 3, 16, 16)
    small = depthwise_separable(model, exclude=["stem"])
    assert small(x).shape == model(x).shape
    before, after = profile(model, x), profile(small, x)
    assert after.layers["stem.0"] == before.layers["stem.0"]
    assert after.layers["layers.0.conv1.0"] == 256 * 16 * 9
    assert after.layers["layers.0.conv1.3"] == 256 * 16 * 16
    assert after.macs < 0.35 * before.macs
    assert isinstance(model.layers[0].conv1, nn.Conv2d)
    assert isinstance(depthwise_separable(Mixed()).depthwise, nn.Conv2d)  # is depthwise already
    with pytest.raises(ValueError, match="`exclude` should match something"):
        depthwise_separable(model, exclude=["head"])
    with pytest.raises(ValueError, match="Linear has no convolution"):
        depthwise_separable(nn.Linear(2, 2))


def test_compound_scaling_is_efficientnets():
    scaling = compound_scale(3.0)
    assert (scaling.depth, scaling.width, scaling.resolution) == (1.2**3, 1.1**3, 1.15**3)
    assert scaling.layers(2) == 4
    assert scaling.channels(32) == 40
    assert compound_scale(-1.0).side(224, 32) == 192
    assert compound_scale(0.0).channels(24) == 24
    with pytest.raises(ValueError, match="should be about 2"):
        compound_scale(1.0, alpha=2.4)
    with pytest.raises(ValueError, match="`beta` should be at least 1"):
        compound_scale(1.0, beta=0.5)
