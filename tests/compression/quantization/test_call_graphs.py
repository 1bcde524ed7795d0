import copy
import warnings
from collections import OrderedDict

import pytest
import torch
from torch import nn

from lightning_green.compression.call_description import CallDescription
from lightning_green.compression.quantization.call_graphs import MOST_GRAPHS, CallGraphs
from tests.helpers.compression_networks import SmallResNet
from tests.helpers.keyword_networks import ModelOutput, TokenClassifier, sentences

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BATCH = next(iter(sentences(4)))


def call_graphs(network, inputs):
    return CallGraphs(network, CallDescription.of(network, inputs))


def unrounded(network, inputs):
    """Return graphs that compute what the network computes."""
    graphs = call_graphs(network, inputs)
    graphs.insert({key: nn.Identity() for key, _ in graphs.rounded}, 8)
    return graphs


def test_graphs_compute_the_output_of_their_mode():
    torch.manual_seed(0)
    network = TokenClassifier()
    graphs = call_graphs(network, BATCH)
    graphs.insert({key: nn.Identity() for key, _ in graphs.rounded}, 8)
    for graph in graphs.graphs():
        graph.round_weight = nn.Identity()
    output = graphs.run(BATCH, training=False)
    assert isinstance(output, ModelOutput)
    torch.testing.assert_close(output.logits, network.eval()(**BATCH).logits)
    torch.manual_seed(1)
    in_training = graphs.run(BATCH, training=True)
    torch.manual_seed(1)
    torch.testing.assert_close(in_training.loss, network.train()(**BATCH).loss)


def test_graphs_fit_calls_with_the_same_arguments():
    graphs = call_graphs(TokenClassifier(), BATCH)
    assert graphs.fit({name: tensor[:2] for name, tensor in BATCH.items()})
    assert not graphs.fit({name: tensor for name, tensor in BATCH.items() if name != "labels"})


def test_graphs_fit_calls_of_the_same_size():
    graphs = call_graphs(SmallResNet(), (X[:2],))
    graphs.insert({key: nn.Identity() for key, _ in graphs.rounded}, 8)
    assert graphs.fit((X,))
    assert graphs.run((X,), training=False).shape == (4, 4)
    assert not graphs.fit((X[..., :8, :8],))


def test_graphs_use_tensors_that_replace_those_of_the_network():
    torch.manual_seed(0)
    network = SmallResNet().eval()
    graphs = call_graphs(network, (X[:2],))
    network.double().float()  # replaces the buffers, as a move does
    network.stem[1].running_mean.add_(1)
    before = graphs.run((X,), training=False)
    graphs.share_tensors()
    assert not torch.allclose(graphs.run((X,), training=False), before)
    torch.testing.assert_close(graphs.run((X,), training=False), network(X))


def test_modules_with_any_name_are_shared():
    torch.manual_seed(0)
    names = ("before_norm", "hooks_norm", "round_norm")
    network = nn.Sequential(OrderedDict({name: nn.BatchNorm1d(4) for name in names} | {"fc": nn.Linear(4, 4)}))
    graphs, x = call_graphs(network.eval(), (torch.randn(2, 4),)), torch.randn(3, 4)
    network.double().float()  # replaces the buffers
    for norm in network[:3]:
        norm.running_mean.add_(1)
    graphs.share_tensors()
    torch.testing.assert_close(graphs.run((x,), training=False), network(x))


def test_other_operations_in_training_raise():
    class Noisy(nn.Linear):
        def forward(self, x):
            return super().forward(super().forward(x) if self.training else x)

    with pytest.raises(ValueError, match="Noisy should have the same operations in training and in evaluation"):
        call_graphs(Noisy(4, 4), (torch.ones(2, 4),))


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.0), nn.Flatten())


def same_as_the_network(graphs, network, x):
    """Return whether the graphs compute what the network does, up to the rounding of weights."""
    return torch.allclose(graphs.run((x,), network.training), copy.deepcopy(network)(x), atol=0.1)


def test_graphs_follow_modes_and_numbers_that_change():
    network, x = cnn(), X[:, :, :4, :4]
    graphs = unrounded(network, (x,))
    network[1].running_mean.add_(5.0)
    assert same_as_the_network(graphs, network, x)
    network[1].eval()
    assert same_as_the_network(graphs, network, x)
    statistics = network[1].running_mean.clone()
    network[3].p = 1.0
    assert (graphs.run((x,), training=True) == 0).all()
    assert torch.equal(network[1].running_mean, statistics)
    network[3].p = 0.0
    network[1].train()
    assert same_as_the_network(graphs, network, x)
    assert len(graphs.graphs()) == 4
    network.eval()
    assert same_as_the_network(graphs, network, x)
    network[3].train()  # as for estimates of uncertainty
    network[3].p = 1.0
    assert (graphs.run((x,), training=False) == 0).all()


def test_number_that_no_graph_contains_is_ignored():
    network, x = cnn(), X[:, :, :4, :4]
    graphs = unrounded(network, (x,))
    for number in range(3):
        network[0].calls = number
        network[2].name = str(number)
        graphs.run((x,), training=True)
    assert len(graphs.graphs()) == 2


class Annealed(nn.Module):
    """Stochastic depth, with a probability that evaluation does not use."""

    def __init__(self):
        super().__init__()
        self.layer, self.head, self.p = nn.Linear(4, 4), nn.Linear(4, 4), 0.0

    def forward(self, x):
        z = self.layer(x)
        if self.training:
            z = z * (torch.rand(x.shape[0], 1) >= self.p)
        return self.head(z + x)


def test_number_of_one_mode_is_followed_after_calls_in_the_other():
    torch.manual_seed(0)
    network, x = Annealed(), torch.randn(64, 4)
    graphs = unrounded(network, (x,))
    for p in (1.0, 0.0, 1.0):
        network.p = p
        for _ in range(2):
            dropped = copy.deepcopy(network)
            torch.testing.assert_close(graphs.run((x,), training=True), dropped(x), atol=0.05, rtol=0.05)
            expected = copy.deepcopy(network).eval()(x)
            torch.testing.assert_close(graphs.run((x,), training=False), expected, atol=0.05, rtol=0.05)
    assert len(graphs.graphs()) == 3


def test_number_that_changes_first_in_evaluation_does_not_mix_the_modes():
    torch.manual_seed(0)
    network, x = Annealed(), torch.randn(64, 4)
    graphs = unrounded(network, (x,))
    network.epoch = 1
    network.eval()
    graphs.run((x,), training=False)
    network.p = 1.0
    first, second = (graphs.run((x,), training=False) for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, network(x), atol=0.05, rtol=0.05)


def test_evaluation_stays_evaluation_after_a_change_that_is_not_followed():
    class Extra(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.dropout, self.extra = nn.Linear(4, 4), nn.Dropout(0.5), False

        def forward(self, x):
            x = self.dropout(self.layer(x))
            return self.layer(x.relu()) + x if self.extra else x

    network, x = Extra(), torch.randn(8, 4)
    graphs = unrounded(network, (x,))
    network.extra = True
    with pytest.warns(UserWarning, match="continues without the change"):
        graphs.run((x,), training=True)
    with pytest.warns(UserWarning, match="continues without the change"):
        first = graphs.run((x,), training=False)
    assert torch.equal(first, graphs.run((x,), training=False))


def test_tensor_that_is_no_buffer_is_followed():
    class Scaled(nn.Linear):
        def forward(self, x):
            return super().forward(x) * torch.tensor(self.number) * self.tensor

    network, x = Scaled(4, 4), torch.randn(8, 4)
    network.number, network.tensor = 1.0, torch.tensor(1.0)
    graphs = unrounded(network, (x,))
    before = graphs.run((x,), training=False)
    network.number = 10.0
    torch.testing.assert_close(graphs.run((x,), training=False), 10 * before)
    network.tensor = torch.tensor(3.0)
    torch.testing.assert_close(graphs.run((x,), training=False), 30 * before)
    count = len(graphs.graphs())
    for number in range(3):
        network.unused = torch.full((3,), float(number))
        graphs.run((x,), training=False)
    assert len(graphs.graphs()) == count


def test_tuple_of_tensors_that_the_plain_network_has_kept_is_no_setting():
    class Pair(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            self.pair = (y, y + 1)
            return y

    network, x = Pair(4, 4), torch.randn(8, 4)
    network(x)
    graphs = unrounded(network, (x,))
    graphs.run((x,), training=True)
    network.other = 1
    output = graphs.run((x,), training=True)
    assert torch.equal(network.pair[1], output + 1)


def test_module_that_is_removed_during_the_training_is_followed():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.auxiliary = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.head(x)

    network, x = Auxiliary(), torch.randn(8, 4)
    graphs = unrounded(network, (x,))
    before = graphs.run((x,), training=True)
    del network.auxiliary
    assert torch.equal(graphs.run((x,), training=True), before)


def test_change_to_other_operations_is_reported_and_not_followed():
    class Switched(nn.Linear):
        twice = False

        def forward(self, x):
            return super().forward(super().forward(x) if self.twice else x)

    network, x = Switched(4, 4), torch.randn(3, 4)
    network.twice = False
    graphs = unrounded(network, (x,))
    before = graphs.run((x,), training=True)
    network.twice = True
    with pytest.warns(UserWarning, match=r"Switched has changed \(`twice`\), but fake quantization continues without"):
        assert torch.equal(graphs.run((x,), training=True), before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graphs.run((x,), training=True)


def test_number_that_changes_often_is_reported():
    network, x = cnn(), X[:, :, :4, :4]
    graphs = unrounded(network, (x,))
    for number in range(MOST_GRAPHS - 2):
        network[3].p = 0.01 * (number + 1)
        graphs.run((x,), training=True)
    network[3].p = 0.5
    with pytest.warns(UserWarning, match=r"Sequential has changed often in fake quantization .*`3.p`"):
        graphs.run((x,), training=True)


def test_graphs_set_the_attributes_that_forward_sets():
    class Keeps(nn.Linear):
        def forward(self, x):
            self.hidden = {"x": super().forward(x), "samples": x.shape[0]}
            return self.hidden["x"].relu()

    network = Keeps(4, 4)
    network(torch.ones(5, 4))
    kept = network.hidden["x"].tolist()
    graphs, x = unrounded(network, (torch.ones(2, 4),)), torch.randn(3, 4)
    assert network.hidden["x"].tolist() == kept  # no tensor without data
    output = graphs.run((x,), training=True)
    assert torch.equal(network.hidden["x"].relu(), output)
    assert network.hidden["samples"] == 3
    network.hidden["x"].sum().backward()
    assert network.weight.grad is not None


def test_attribute_that_no_graph_can_set_raises_and_a_number_warns():
    class Odd(nn.Linear):
        def forward(self, x):
            self.other, self.calls = self.make(), self.calls + 1
            return super().forward(x)

    network = Odd(4, 4)
    network.calls, network.make = 0, set
    with pytest.raises(ValueError, match="Its `forward` sets the attribute `other` to set instead of tensors"):
        call_graphs(network, (torch.ones(2, 4),))
    network.make = int
    with pytest.warns(UserWarning, match="`forward` of Odd changes the number `calls`, which stays 1"):
        call_graphs(network, (torch.ones(2, 4),))


class StochasticDepth(nn.Module):
    """As in torchvision and timm: a residual branch that training sometimes leaves out."""

    def __init__(self, divided):
        super().__init__()
        self.layer, self.head, self.divided = nn.Linear(4, 4), nn.Linear(4, 4), divided

    def dropped(self, x):
        if not self.training:
            return x
        mask = x.new_empty((x.shape[0], 1)).bernoulli_(0.5)
        return x * mask.div_(0.5) if self.divided else x.div(0.5) * mask

    def forward(self, x):
        return self.head(self.dropped(self.layer(x)) + x)


@pytest.mark.parametrize("divided", [True, False])
def test_random_masks_of_training_are_no_other_operations(divided):
    torch.manual_seed(0)
    network, x = StochasticDepth(divided), torch.randn(6, 4)
    graphs = unrounded(network, (x,))
    assert len({tuple(row) for row in graphs.run((x,), training=True).tolist()}) > 1
    torch.manual_seed(3)
    outputs = graphs.run((x,), training=True)
    torch.manual_seed(3)
    torch.testing.assert_close(outputs, network(x), atol=0.05, rtol=0.05)
    torch.testing.assert_close(graphs.run((x,), training=False), network.eval()(x), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("norm", ["weight_norm", "old weight_norm", "spectral_norm", "old spectral_norm"])
def test_weight_that_is_computed_from_parameters_is_rounded(norm):
    torch.manual_seed(0)
    kinds = torch.nn.utils if norm.startswith("old") else torch.nn.utils.parametrizations
    apply = getattr(kinds, norm.removeprefix("old "))
    graphs = call_graphs(nn.Sequential(apply(nn.Linear(4, 6)), nn.ReLU(), nn.Linear(6, 2)), (torch.ones(2, 4),))
    assert graphs.float_weights == []
    assert all(sorted(graph.points.weights) == ["0.weight", "2.weight"] for graph in graphs._graphs)


def test_weights_that_stay_in_float_are_named():
    network = nn.Sequential(nn.ConvTranspose2d(3, 4, 2), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(16, 2))
    assert call_graphs(network, (torch.ones(2, 3, 1, 1),)).float_weights == ["0.weight"]
