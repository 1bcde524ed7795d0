import copy

import pytest
import torch

from lightning_green.compression import removable_widths, remove_channels
from lightning_green.compression.pruning.channels import kept_channels
from tests.helpers.compression_networks import SmallResNet, count
from tests.helpers.extras import needs_torch_pruning

pytestmark = needs_torch_pruning
X = torch.randn(2, 3, 16, 16)


def test_removing_zero_channels_keeps_the_output():
    model = SmallResNet().eval()
    block = model.layers[0]
    dead = [1, 4, 6]
    with torch.no_grad():
        block.conv1.weight[dead] = 0
        block.bn1.weight[dead] = 0
        block.bn1.bias[dead] = 0
    expected = model(X)
    widths = removable_widths(model, (X[:1],))
    remove_channels(model, (X[:1],), {"layers.0.conv1": 3 / 8}, widths=widths, parameters=count(model))
    assert block.conv1.weight.shape[0] == 5
    assert torch.allclose(model(X), expected, atol=1e-6)


def test_output_and_excluded_layers_are_not_removable():
    widths = removable_widths(SmallResNet(), (X[:1],))
    assert "fc" not in widths
    assert "layers.0.conv1" not in removable_widths(SmallResNet(), (X[:1],), ("layers.0",))


def test_tracing_changes_no_statistics_generators_or_modes():
    model = SmallResNet()
    model.layers[0].eval()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    removable_widths(model, (X[:1],))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert not model.layers[0].training


@pytest.mark.parametrize(("ratio", "round_to", "kept"), [(0.3, 8, 48), (0.3, 1, 45), (1.0, 8, 8), (0.99, 1, 1)])
def test_kept_channels_are_multiples_of_round_to(ratio, round_to, kept):
    assert kept_channels(64, ratio, round_to) == kept
