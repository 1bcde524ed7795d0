import torch
from torch import nn

from lightning_green.compression.quantization.exported import export_graph
from lightning_green.compression.quantization.graph_hooks import call_hooks, replace_uses

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return torch.relu(self.second(torch.relu(self.first(x)))) + x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block, self.head = Block(), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.block(x))


def compare(network):
    """Assert that graph and network have equal outputs, and return the graph's."""
    exported = export_graph(network, (X[:2],), training=False)
    call_hooks(exported.graph, network)
    (output,) = exported.graph(X)
    torch.testing.assert_close(output, network(X))
    return output


def test_forward_hooks_receive_the_outputs_of_their_modules():
    network, seen = Net(), {"hook": [], "keywords": []}
    network.block.first.register_forward_hook(lambda module, args, output: seen["hook"].append(output))
    network.block.register_forward_hook(
        lambda module, args, kwargs, output: seen["keywords"].append(output), with_kwargs=True
    )
    exported = export_graph(network, (X[:2],), training=False)
    call_hooks(exported.graph, network)
    for calls in seen.values():
        calls.clear()
    exported.graph(X)
    network(X)
    for of_graph, of_network in seen.values():
        torch.testing.assert_close(of_graph, of_network)


def test_hooks_receive_gradients():
    network, seen = Net(), []
    network.block.register_forward_hook(lambda module, args, output: seen.append(output))
    exported = export_graph(network, (X[:2],), training=True)
    call_hooks(exported.graph, network)
    seen.clear()
    exported.graph(X)
    seen[0].square().sum().backward()
    assert network.block.first.weight.grad.abs().sum() > 0
    assert network.head.weight.grad is None


def test_pre_hooks_change_the_inputs_of_their_modules():
    network = Net()
    exported = export_graph(network, (X[:2],), training=False)
    plain = network(X)
    network.block.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    network.head.register_forward_pre_hook(lambda module, args, kwargs: ((args[0] - 1,), kwargs), with_kwargs=True)
    network.block.first.register_forward_pre_hook(lambda module, args: args[0].abs())
    call_hooks(exported.graph, network)
    (output,) = exported.graph(X)
    torch.testing.assert_close(output, network(X))
    assert not torch.allclose(output, plain)


def test_modules_without_operations_in_the_graph_are_skipped():
    network = Net()
    network.unused = nn.Linear(2, 2)
    network.unused.register_forward_hook(lambda module, args, output: 1 / 0)
    compare(network)


def test_uses_are_replaced_except_in_the_replacement():
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    negative = graph.call_function(torch.neg, (x,))
    total = graph.call_function(torch.add, (x, x))
    graph.output(total)
    replace_uses(x, negative)
    assert negative.args == (x,)
    assert total.args == (negative, negative)
