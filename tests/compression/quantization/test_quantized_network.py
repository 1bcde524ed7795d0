import warnings

import pytest
import torch
from torch import nn

from lightning_green.compression.quantization.quantized_network import QuantizedNetwork, quantize
from tests.helpers.compression_fits import assert_equal
from tests.helpers.compression_networks import SmallResNet
from tests.helpers.keyword_networks import LitTokens, TokenClassifier, sentences
from tests.helpers.quantized_networks import IMAGES as X
from tests.helpers.quantized_networks import NETWORKS, trained


@pytest.mark.parametrize("network", NETWORKS)
def test_graphs_match_the_network_without_rounding(network):
    torch.manual_seed(0)
    model = network()
    quantized = QuantizedNetwork(model, (X[:2],))
    for graph in quantized._calls[0].graphs():
        graph.round_weight = nn.Identity()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(1)
    quantized.observing = False
    ours = quantized.run(X)
    statistics = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    torch.manual_seed(1)
    assert torch.allclose(ours, model(X), atol=1e-6)
    for key, value in model.state_dict().items():
        assert torch.allclose(value.float(), statistics[key].float(), atol=1e-6), key
    model.eval()
    assert torch.allclose(quantized.run(X, training=False), model(X), atol=1e-6)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in model.state_dict().items())


def test_evaluation_changes_no_statistics_or_ranges():
    model, quantized = trained(SmallResNet, steps=1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    counts = [r.count for r in quantized.roundings.values()]
    quantized.run(X, training=False)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [r.count for r in quantized.roundings.values()] == counts


def test_keep_float_patterns_keep_layers_in_float():
    quantized = QuantizedNetwork(SmallResNet(), (X[:2],), keep_float=["layers.0", "fc"])
    quantized.run(X)
    state = quantized.convert().state_dict()
    assert sum(v.dtype is torch.int8 for v in state.values()) == 7 - 2 - 1
    assert {k for k in state if k.endswith("weight") and state[k].dtype is torch.float32} >= {
        "layers_0_conv1_weight",
        "layers_0_conv2_weight",
        "fc_weight",
    }


class Uncertain(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.auxiliary = nn.Linear(4, 4)

    def forward(self, x):
        if self.training:
            return self.fc(x), self.auxiliary(x)
        return self.fc(x)


def test_networks_that_cannot_be_quantized_raise():
    with pytest.raises(ValueError, match="Uncertain should have the same operations in training and in evaluation"):
        QuantizedNetwork(Uncertain(), (torch.randn(2, 4),))
    with pytest.raises(ValueError, match="fake quantization has observed no data"):
        QuantizedNetwork(SmallResNet(), (X[:2],)).convert()
    with pytest.raises(ValueError, match="`batches` should contain at least one batch"):
        quantize(SmallResNet(), [])
    with pytest.raises(ValueError, match="ranges of 1 activations, but the network has 10"):
        QuantizedNetwork(SmallResNet(), (X[:2],)).load_state_dict({"x": {}})


def test_loss_in_the_network_is_not_rounded(tmp_path):
    torch.manual_seed(0)
    module = LitTokens(TokenClassifier())
    batch = next(iter(sentences(8)))
    quantized = QuantizedNetwork(module.model, batch)
    output = quantized.compute(batch)
    expected = nn.functional.cross_entropy(output.logits, batch["labels"])
    torch.testing.assert_close(output.loss, expected)
    unlabeled = {name: batch[name] for name in ("input_ids", "attention_mask")}
    assert quantized.compute(unlabeled, training=False).loss is None
    torch.testing.assert_close(
        quantized.compute(unlabeled, training=False).logits, quantized.compute(batch, training=False).logits
    )


def test_another_size_has_graphs_with_the_same_ranges():
    model, quantized = trained(SmallResNet)
    before = quantized.state_dict()
    small = X[..., :8, :8]
    output = quantized.run(small, training=False)
    assert output.shape == (32, 4)
    torch.testing.assert_close(output, model.eval()(small), atol=0.3 * float(output.std()), rtol=0)
    assert not torch.equal(output, model(small))
    assert_equal(quantized.state_dict(), before)
    count = next(iter(quantized.roundings.values())).count
    quantized.run(small)
    assert {rounding.count for rounding in quantized.roundings.values()} == {count + 1}


class Scaled(nn.Module):
    """Scales its output; a mask selects the samples, and numbers below one half do."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, scale=1.0, mask=None):
        if mask is not None:
            selected = mask if mask.dtype is torch.bool else mask < 0.5
            x = torch.where(selected[:, None], x, 0.0)
        return self.fc(x) * scale


def test_many_kinds_of_calls_warn_once():
    quantized, x = QuantizedNetwork(Scaled(), (torch.ones(2, 4),)), torch.ones(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in range(7):
            quantized.run(x, 2.0 + scale)
    with pytest.warns(UserWarning, match="Scaled has been called in 9 different ways .* pass it as a tensor"):
        quantized.run(x, 100.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantized.run(x, 101.0)


def test_types_of_tensors_have_graphs_of_their_own():
    network, x = Scaled(), torch.arange(12.0).view(3, 4)
    quantized = QuantizedNetwork(network, (x, 1.0, torch.ones(3)))
    mask = torch.tensor([True, False, True])
    for given in (mask, mask.float()):
        expected = network(x, mask=given)
        torch.testing.assert_close(quantized.run(x, 1.0, given), expected, atol=0.05 * float(expected.std()), rtol=0.05)
