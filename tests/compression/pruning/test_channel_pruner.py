import pytest
import torch
from torch import nn

from lightning_green.compression import ChannelPruner, removable_widths
from tests.helpers.compression_networks import Mixed, SmallResNet, count
from tests.helpers.extras import needs_torch_pruning

pytestmark = needs_torch_pruning
X = torch.randn(2, 3, 16, 16)


@pytest.mark.parametrize("network", [SmallResNet, Mixed])
def test_half_of_the_parameters_are_removed_and_training_continues(network):
    torch.manual_seed(0)
    model, original = network(width=16), count(network(width=16))
    optimizer = torch.optim.AdamW(model.parameters())
    pruner = ChannelPruner(0.5)
    for progress in (0.4, 1.0):
        model(X).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.update(model, (X[:1],), progress, [optimizer])
        assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in model.parameters()}
        for parameter, state in optimizer.state.items():
            assert state["exp_avg"].shape == parameter.shape
    assert 0.45 < 1 - count(model) / original < 0.6
    assert model(X).shape == (2, 4)


def test_optimizer_state_of_remaining_channels_is_kept():
    torch.manual_seed(0)
    model = SmallResNet()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(X).square().sum().backward()
    optimizer.step()
    # Momentum in the image of the weight: after the surgery it has to be that of the smaller weight.
    for parameter, state in optimizer.state.items():
        state["momentum_buffer"].copy_(3 * parameter.detach())
    ChannelPruner(0.5).update(model, (X[:1],), 1.0, [optimizer])
    for parameter, state in optimizer.state.items():
        assert torch.equal(state["momentum_buffer"], 3 * parameter.detach())


class Tied(nn.Module):
    """Layers that share a weight, and one that is used twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 1)
        self.twice = nn.Conv2d(12, 12, 1)
        self.narrow = nn.Linear(12, 8)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = self.twice(torch.relu(self.twice(torch.relu(self.wide(self.stem(x))))))
        return self.fc(torch.relu(self.second(torch.relu(self.first(self.narrow(x.mean((2, 3))))))))


def test_tied_weights_stay_tied_and_reused_layers_are_sliced_once():
    model = Tied()
    optimizer = torch.optim.AdamW(model.parameters())
    model(X).square().sum().backward()
    optimizer.step()
    widths = removable_widths(model, (X[:1],))
    assert not {"first", "second", "narrow"} & widths.keys()
    pruner = ChannelPruner(0.4)
    pruner.update(model, (X[:1],), 1.0, [optimizer])
    assert model.second.weight is model.first.weight
    assert model.first.weight.shape == (8, 8)
    assert model.twice.weight.shape[:2] == (model.wide.out_channels,) * 2 == (model.narrow.in_features,) * 2
    assert model.wide.out_channels < 12
    gone = pruner.sparsity(model)
    assert gone[""] >= 0.4
    for name, width in widths.items():
        assert gone[name] == pytest.approx(1 - model.get_submodule(name).out_channels / width)
    model(X).square().sum().backward()
    optimizer.step()


def test_unreachable_targets_raise():
    model = SmallResNet()
    with pytest.raises(ValueError, match=r"`target` 0\.9 cannot be reached: with 8 channels"):
        ChannelPruner(0.9, round_to=8).update(model, (X[:1],), 1.0)
    with pytest.raises(ValueError, match=r"would remove all 8 channels of layer 'layers\.0\.conv1'"):
        ChannelPruner({"layers.0.conv1": 0.99}).update(model, (X[:1],), 1.0)
    with pytest.raises(ValueError, match=r"`target` should match something, but 'nothing\.\*'"):
        ChannelPruner({"nothing.*": 0.5}).update(model, (X[:1],), 1.0)
