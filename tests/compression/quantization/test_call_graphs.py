from collections import OrderedDict

import pytest
import torch
from torch import nn

from lightning_green.compression.quantization.call_graphs import CallGraphs
from tests.helpers.compression_networks import SmallResNet
from tests.helpers.keyword_networks import ModelOutput, TokenClassifier, sentences

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BATCH = next(iter(sentences(4)))


def test_graphs_compute_the_output_of_their_mode():
    torch.manual_seed(0)
    network = TokenClassifier()
    graphs = CallGraphs(network, BATCH)
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
    graphs = CallGraphs(TokenClassifier(), BATCH)
    assert graphs.fit({name: tensor[:2] for name, tensor in BATCH.items()})
    assert not graphs.fit({name: tensor for name, tensor in BATCH.items() if name != "labels"})


def test_graphs_fit_calls_of_the_same_size():
    graphs = CallGraphs(SmallResNet(), (X[:2],))
    graphs.insert({key: nn.Identity() for key, _ in graphs.rounded}, 8)
    assert graphs.fit((X,))
    assert graphs.run((X,), training=False).shape == (4, 4)
    assert not graphs.fit((X[..., :8, :8],))


def test_graphs_use_tensors_that_replace_those_of_the_network():
    torch.manual_seed(0)
    network = SmallResNet().eval()
    graphs = CallGraphs(network, (X[:2],))
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
    graphs, x = CallGraphs(network.eval(), (torch.randn(2, 4),)), torch.randn(3, 4)
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
        CallGraphs(Noisy(4, 4), (torch.ones(2, 4),))
