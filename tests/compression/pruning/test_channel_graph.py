import pytest
import torch
from torch import nn

from lightning_green.compression.pruning.channel_graph import ChannelGraph, channel_count
from tests.helpers.extras import needs_torch_pruning

pytestmark = needs_torch_pruning


class Gram(nn.Module):
    """Multiplies channels with themselves: the smaller product has other entries for the next layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(64, 4)

    def forward(self, x):
        z = self.conv(x).flatten(2)
        return self.head((z @ z.transpose(1, 2)).flatten(1))


@pytest.mark.timeout(120)
def test_search_ends_for_channels_that_depend_on_themselves():
    from torch_pruning.dependency.group import Group

    before, graph = Group.add_dep, ChannelGraph(Gram(), (torch.randn(1, 3, 8, 8),))
    groups, left = graph.groups()
    assert list(groups) == ["head"]
    assert left == {"conv": "its channels depend on themselves in another shape"}
    with pytest.raises(RecursionError):
        graph.remove("conv", [0])
    assert Group.add_dep is before


def test_groups_have_the_layers_that_depend_on_their_channels():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    graph = ChannelGraph(model, (torch.randn(1, 3, 8, 8),))
    groups, left = graph.groups()
    assert left == {}
    assert graph.members(groups["0"]) == ["0", "1", "4"]
    graph.remove("0", [1, 5])
    assert (channel_count(model[0]), model[1].num_features, model[4].in_features) == (6, 6, 216)
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 4)


class CachedBias(nn.Module):
    """Keeps a bias of its weights for the evaluation, as attention layers do."""

    def __init__(self):
        super().__init__()
        self.conv, self.table, self.head = nn.Conv2d(3, 8, 3), nn.Parameter(torch.ones(2)), nn.Linear(8, 4)
        self.cache, self.seen = {}, ["nothing"]

    def forward(self, x):
        if self.training or "bias" not in self.cache:
            self.cache["bias"] = self.table[torch.tensor([0, 1, 0, 1])] * 2
            self.seen.append(x)
            self.last = x
        return self.head(self.conv(x).mean((2, 3))) + self.cache["bias"]


def test_attributes_that_a_trial_sets_are_not_left_in_the_network():
    model = CachedBias().eval()
    cache, seen = model.cache, model.seen
    ChannelGraph(model, (torch.randn(1, 3, 8, 8),))
    assert model.cache is cache
    assert model.seen is seen
    assert (cache, seen) == ({}, ["nothing"])
    assert not hasattr(model, "last")
