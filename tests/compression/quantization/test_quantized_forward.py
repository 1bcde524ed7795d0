import copy
import types

import pytest
import torch
from torch import nn

from lightning_green.compression.quantization.quantized_forward import plain_forward, quantized_forward
from lightning_green.compression.quantization.quantized_network import QuantizedNetwork

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.dropout, self.head = nn.Linear(4, 8), nn.Dropout(0.9), nn.Linear(8, 3)

    def forward(self, x, scale=1.0):
        return self.head(self.dropout(torch.relu(self.body(x)))) * scale


@pytest.fixture
def pair():
    torch.manual_seed(0)
    network = Net()
    quantized = QuantizedNetwork(network, (X[:2],))
    quantized.run(X)
    return network, quantized


def test_calls_are_quantized_until_the_plain_forward_is_restored(pair):
    network, quantized = pair
    network.eval()
    plain = network(X)
    quantized_forward(network, quantized)
    quantized_forward(network, quantized)  # again, as after a test
    assert torch.equal(network(X), quantized.run(X, training=False))
    assert torch.equal(network(x=X), network(X))
    assert not torch.equal(network(X), plain)
    assert type(network) is Net
    assert network.state_dict().keys() == Net().state_dict().keys()
    plain_forward(network)
    assert torch.equal(network(X), plain)
    assert "forward" not in network.__dict__
    plain_forward(network)


def test_mode_of_the_network_selects_the_graph(pair):
    network, quantized = pair
    quantized_forward(network, quantized)
    counts = [rounding.count for rounding in quantized.roundings.values()]
    network.eval()(X)
    assert [rounding.count for rounding in quantized.roundings.values()] == counts
    assert not torch.equal(network.train()(X), network(X))  # dropout
    assert [rounding.count for rounding in quantized.roundings.values()] == [count + 2 for count in counts]


def test_other_arguments_have_graphs_of_their_own(pair):
    network, quantized = pair
    quantized_forward(network, quantized)
    network.eval()
    with pytest.raises(ValueError, match="Net should have the same operations in all of its calls"):
        network(X, scale=torch.tensor(2.0).expand(6, 3))  # a product of two activations is rounded
    torch.testing.assert_close(network(X, 2.0), 2 * network(X))
    with torch.inference_mode():
        network(X, scale=3.0)
    assert len(quantized._calls) == 3
    network(X, scale=1.0)
    assert len(quantized._calls) == 3


def test_deep_copy_has_the_plain_forward(pair):
    network, quantized = pair
    network.eval()
    plain = network(X)
    quantized_forward(network, quantized)
    copied = copy.deepcopy(network)
    assert torch.equal(copied(X), plain)
    with torch.no_grad():
        copied.head.bias += 1
    assert torch.allclose(copied(X), plain + 1)
    assert not torch.equal(network(X), plain)


def test_own_attribute_of_the_network_is_restored(pair):
    network, quantized = pair
    own = network.forward = lambda x: torch.zeros(len(x), 3)
    quantized_forward(network, quantized)
    assert (network.eval()(X) != 0).any()
    plain_forward(network)
    assert network.forward is own


def test_deep_copy_has_the_own_attribute_of_the_network(pair):
    network, quantized = pair
    network.forward = types.MethodType(lambda self, x: self.head.bias.expand(len(x), 3), network)
    quantized_forward(network, quantized)
    copied = copy.deepcopy(network)
    with torch.no_grad():
        copied.head.bias.zero_()
    assert (copied(X) == 0).all()
    assert (network.eval()(X) != 0).any()
