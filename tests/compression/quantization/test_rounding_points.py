import pytest
import torch
from torch import nn

from lightning_green.compression.quantization.exported import export_graph
from lightning_green.compression.quantization.rounding_points import find_rounding_points
from tests.helpers.compression_networks import Inception, SmallResNet
from tests.helpers.keyword_networks import TokenClassifier, sentences

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def points(network, inputs=(X,), training=False, **arguments):
    return find_rounding_points(export_graph(network, inputs, training).graph, **arguments)


def operations(found):
    return [str(node.target).removeprefix("aten.").split(".")[0] for node in found.values()]


def test_fused_groups_have_rounded_inputs_and_outputs():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(784, 4))
    found = points(network)
    assert list(found.weights) == ["0.weight", "4.weight"]
    assert [node.op for node in found.values.values()] == ["placeholder", "call_function"]
    assert operations(found.values)[1:] == ["relu"]  # neither the convolution, nor batch norm, nor the last layer
    assert [str(node.target) for node in found.norms.values()] == ["aten.batch_norm.default"]
    assert operations({n.name: n for n in found.passed_on}) == ["flatten"]
    assert set(found.passed_on.values()) == {"value_1"}


def test_additions_have_rounded_inputs_and_one_output():
    found = points(SmallResNet())
    assert len(found.weights) == 7
    assert operations(found.values)[1:].count("relu") == 5  # of the stem, of two blocks twice
    assert not {"add", "conv2d"} & set(operations(found.values)[1:])


def test_layer_that_is_used_twice_has_two_keys():
    assert [key for key in points(Inception()).weights if "shared" in key] == ["shared.weight", "shared.weight#2"]


def test_keys_are_equal_in_training_and_evaluation_and_with_a_loss():
    batch = next(iter(sentences(2)))
    unlabeled = {name: batch[name] for name in ("input_ids", "attention_mask")}
    found = [points(TokenClassifier(), given, mode) for given in (batch, unlabeled) for mode in (True, False)]
    keys = [[(key, str(node.target)) for key, node in each.values.items()] for each in found]
    assert all(each == keys[0] for each in keys)
    assert all("cross_entropy" not in name and "loss" not in name for _, name in keys[0])


def test_layers_in_float_have_no_points():
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    found = points(network, (torch.ones(2, 4),), keep_float=["0"])
    assert list(found.weights) == ["2.weight"]
    with pytest.raises(ValueError, match="`keep_float` should match something, but 'head' matches none"):
        points(network, (torch.ones(2, 4),), keep_float=["head"])
    with pytest.raises(ValueError, match="nothing to quantize"):
        points(network, (torch.ones(2, 4),), keep_float=["0", "2"])
