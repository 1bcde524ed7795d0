"""Channels are removed where the smaller network computes what zeros in their place do; other layers are left whole."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from lightning_green.compression import ChannelPruner, remove_channels
from lightning_green.compression.pruning.channels import find_removable
from tests.helpers.compression_networks import count
from tests.helpers.extras import needs_torch_pruning
from tests.helpers.zoo import NETWORKS, conv, images

pytestmark = needs_torch_pruning
X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))

# The layers that lose channels, and those that keep them. Layers of the output and of a residual are in neither.
REMOVABLE = {
    "attention, joined": ({"first"}, {"second", "qkv"}),
    "GLU": ({"inner"}, {"stem"}),
    "chunk": ({"stem"}, {"branch"}),
    "split": ({"inner"}, {"stem"}),
    "PixelShuffle": ({"inner"}, {"stem"}),
    "PixelUnshuffle": ({"inner"}, {"stem"}),
    "channel shuffle": ({"inner"}, {"stem"}),
    "nn.ChannelShuffle": ({"inner"}, {"stem"}),
    "shuffle units": ({"unit.0"}, {"unit.2", "inner", "stem"}),
    "product of channels": ({"inner", "stem"}, {"conv"}),
    "flip of channels": ({"inner"}, {"stem"}),
    "every other channel": ({"inner"}, {"stem"}),
    "transposed convolution": ({"inner", "up", "stem"}, set()),
    "view before a transposed convolution": ({"up", "stem"}, {"wide"}),
    "flatten": ({"inner", "stem"}, set()),
    "depthwise": ({"inner", "depth"}, set()),
    "grouped": ({"inner"}, {"group", "stem"}),
    "squeeze and excite": ({"inner", "stem", "down"}, set()),
    "concatenation": ({"inner", "stem", "branch"}, set()),
    "residual": ({"inner", "stem", "first"}, set()),
    "softmax over channels": ({"inner"}, {"stem"}),
    "mean over channels": ({"inner"}, {"stem"}),
    "batch norm": ({"inner", "stem"}, set()),
    "instance norm": ({"inner", "stem"}, set()),
    "group norm": ({"inner"}, {"stem"}),
    "layer norm of channels": ({"inner", "stem"}, set()),
    "layer norm of all dimensions": ({"inner"}, {"stem"}),
    "PReLU": ({"inner", "stem"}, set()),
    "buffer": ({"inner"}, {"stem"}),
    "parameter of no layer": ({"inner"}, {"stem"}),
    "layer used twice": ({"inner"}, set()),
    "two outputs": ({"stem"}, set()),
    "draws random numbers": ({"inner"}, {"stem"}),
    "only in training": ({"inner"}, {"stem"}),
}
REFUSED = {
    "attention, separate": r"`v`: the network without them fails",
    "weight norm": "the weight of `inner` is computed from others",
    "weight norm, older": "the weight of `inner` is computed from others",
    "spectral norm": "the weight of `inner` is computed from others",
    "spectral norm, older": "the weight of `inner` is computed from others",
    "shared weight": "`one` shares its weight",
    "recurrent": "`stem`: Torch-Pruning cannot follow its channels",
    "nn.MultiheadAttention": "`inner` is a MultiheadAttention",
}


def make(name):
    torch.manual_seed(0)
    return NETWORKS[name]()


def test_each_network_of_the_zoo_is_expected():
    assert REMOVABLE.keys() | REFUSED.keys() == NETWORKS.keys()


@pytest.mark.parametrize("name", REMOVABLE)
def test_network_trains_after_the_removal(name):
    model = make(name)
    widths, left = find_removable(model, (X[:1],))
    assert (set(widths), set(left)) == REMOVABLE[name]
    before = count(model)
    remove_channels(model, (X[:1],), dict.fromkeys(widths, 0.5), widths=widths, parameters=before)
    assert count(model) < before
    outputs = model(X)
    sum(one.square().sum() for one in (outputs if isinstance(outputs, tuple) else [outputs])).backward()
    assert all(parameter.grad is None or parameter.grad.shape == parameter.shape for parameter in model.parameters())


@pytest.mark.parametrize("name", REFUSED)
def test_network_without_a_removable_channel_is_refused_with_the_reason(name):
    model = make(name)
    with pytest.raises(ValueError, match=REFUSED[name]):
        find_removable(model, (X[:1],))


def random_states():
    name, keys, position, *_ = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), (name, keys.tolist(), position)


def test_comparison_draws_no_number_and_changes_no_statistic_of_the_network():
    def noisy(s, x):
        return s.inner(s.norm(x) * (1 + 0 * random.random() + 0 * np.random.random()))

    model = images(conv(), noisy, norm=nn.BatchNorm2d(16), inner=conv(16, 16))
    before, states = {name: value.clone() for name, value in model.state_dict().items()}, random_states()
    widths, _ = find_removable(model, (X[:1],))
    assert widths == {"inner": 16, "stem": 16}
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert random_states() == states


def test_target_that_cannot_be_reached_is_refused_before_anything_is_removed():
    model = make("attention, joined")
    before, pruner = count(model), ChannelPruner(0.9)
    with pytest.raises(ValueError, match=r"`target` 0\.9 cannot be reached"):
        pruner.prepare(model, (X[:1],))
    assert count(model) == before
    assert pruner.layers == 0
    assert set(ChannelPruner(0.1).prepare(model, (X[:1],))) == {"second", "qkv"}


@needs_torch_pruning
def test_layers_that_only_training_has_are_compared_too():
    """As the auxiliary classifier of Inception, whose batch norm does not train on one sample."""

    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 16), nn.Linear(16, 4)
            self.auxiliary = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))

        def forward(self, x):
            z = self.stem(x).relu()
            y = self.head(self.body(z).relu())
            return (y, self.auxiliary(z)) if self.training else y

    torch.manual_seed(0)
    widths, left = find_removable(Auxiliary(), (torch.randn(1, 6),))
    assert list(widths) == ["body"]
    assert "stem" in left
