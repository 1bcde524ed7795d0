import copy

import pytest
import torch
from torch import nn

from lightning_green.compression import ChannelPruner, load_pruned, removable_widths, remove_channels, resize_to
from lightning_green.compression.pruning.channels import kept_channels
from tests.compression.networks import Mixed, Residual, SmallResNet, count

pytest.importorskip("torch_pruning", reason="needs the extra `compression`: torch-pruning")
X = torch.randn(2, 3, 16, 16)


@pytest.mark.parametrize("network", [SmallResNet, Mixed])
def test_half_of_the_parameters_go_and_the_rest_still_trains(network):
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


def test_the_optimizer_keeps_the_state_of_the_channels_that_stay():
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


def test_removing_channels_that_are_zero_changes_nothing():
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


def test_the_output_keeps_its_classes_and_excluded_layers_their_channels():
    widths = removable_widths(SmallResNet(), (X[:1],))
    assert "fc" not in widths
    assert "layers.0.conv1" not in removable_widths(SmallResNet(), (X[:1],), ("layers.0",))


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


def test_tied_weights_stay_tied_and_a_layer_used_twice_is_cut_once():
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


def test_tracing_leaves_statistics_generators_and_modes_alone():
    model = SmallResNet()
    model.layers[0].eval()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    removable_widths(model, (X[:1],))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert not model.layers[0].training


@pytest.mark.parametrize(("ratio", "round_to", "kept"), [(0.3, 8, 48), (0.3, 1, 45), (1.0, 8, 8), (0.99, 1, 1)])
def test_kept_channels_are_whole_multiples(ratio, round_to, kept):
    assert kept_channels(64, ratio, round_to) == kept


def test_what_cannot_be_reached_says_so():
    model = SmallResNet()
    with pytest.raises(ValueError, match=r"`target` 0\.9 cannot be reached: with 8 channels"):
        ChannelPruner(0.9, round_to=8).update(model, (X[:1],), 1.0)
    with pytest.raises(ValueError, match=r"would take all 8 channels of layer 'layers\.0\.conv1'"):
        ChannelPruner({"layers.0.conv1": 0.99}).update(model, (X[:1],), 1.0)
    with pytest.raises(ValueError, match=r"`target` should match something, but 'nothing\.\*'"):
        ChannelPruner({"nothing.*": 0.5}).update(model, (X[:1],), 1.0)


class Everything(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 8, 2)
        self.act = nn.PReLU(8)
        self.block = Residual(8, 16, 2)
        self.depthwise = nn.Conv2d(16, 32, 3, groups=16)
        self.fc = nn.Linear(32, 16)
        self.norm = nn.LayerNorm(16)
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        x = self.depthwise(self.block(self.act(self.up(x)))).mean((2, 3))
        return self.out(self.norm(self.fc(x)))


@pytest.mark.parametrize("network", [SmallResNet, Mixed, Everything])
def test_a_pruned_checkpoint_loads_into_the_same_model(network, tmp_path):
    model = network()
    ChannelPruner(0.4).update(model, (X[:1],), 1.0)
    torch.save({"state_dict": {f"net.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "x.ckpt")
    again = load_pruned(network(), tmp_path / "x.ckpt", prefix="net.")
    assert repr(again) == repr(model)
    assert torch.equal(again.eval()(X), model.eval()(X))
    with pytest.raises(ValueError, match="`prefix` should start some key"):
        load_pruned(network(), tmp_path / "x.ckpt", prefix="other.")


def test_resizing_to_the_same_sizes_changes_nothing():
    model = SmallResNet()
    parameters = list(model.parameters())
    assert not resize_to(model, model.state_dict())
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
