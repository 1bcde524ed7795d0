import pytest
import torch

from lightning_green.compression.quantization.agreement import agreement
from lightning_green.compression.quantization.fake_quantize import (
    weight_scales,
)
from lightning_green.compression.quantization.int8 import int8_inputs
from lightning_green.compression.quantization.quantized_network import quantize
from tests.helpers.compression_networks import Inception, SmallResNet
from tests.helpers.keyword_networks import TokenClassifier, sentences
from tests.helpers.quantized_networks import IMAGES as X
from tests.helpers.quantized_networks import NETWORKS, trained


@pytest.mark.parametrize("network", NETWORKS)
def test_converted_network_matches_fake_quantization(network):
    model, quantized = trained(network)
    simulated = quantized.run(X, training=False)
    converted = quantized.convert()
    difference = (converted(X) - simulated).abs() / simulated.std()
    assert float((difference < 1e-3).float().mean()) > 0.95  # a CPU with VNNI may round a tie the other way
    assert float(difference.max()) < 0.03
    assert not torch.allclose(model(X), simulated, atol=1e-3 * float(simulated.std()))
    assert agreement([simulated], [model(X)]).difference < 0.2
    assert converted(X[:1]).shape == (1, 4)
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    assert sum(v.numel() for v in converted.state_dict().values() if v.dtype is torch.int8) == weights + extra(model)


def extra(model):
    return model.shared.weight.numel() if isinstance(model, Inception) else 0  # stored for each of its uses


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_folding_batch_norm_keeps_the_integers_of_training(sign):
    model, quantized = trained(SmallResNet)
    norm = model.layers[0].bn1
    with torch.no_grad():
        norm.weight.copy_(sign * torch.linspace(0.1, 3.0, len(norm.weight)))
    weight = model.layers[0].conv1.weight.detach()
    integers = torch.round(weight / weight_scales(weight, 63).view(-1, 1, 1, 1))
    stored = quantized.convert().state_dict()["conv2d_1_weight"]
    assert torch.equal(stored.float(), sign * integers)


def test_conversion_handles_dead_channels_and_large_biases():
    model, quantized = trained(SmallResNet)
    block = model.layers[0]
    with torch.no_grad():
        block.conv1.weight[0] = 0
        block.bn1.weight[1] = 0
        block.bn1.weight[2] = 1e-9
        block.bn1.bias[:3] = 2.0
    simulated = quantized.run(X, training=False)
    assert torch.allclose(quantized.convert()(X), simulated, atol=1e-3 * float(simulated.std()))


def test_inputs_are_found_by_name():
    network, batch = TokenClassifier(), next(iter(sentences(4)))
    int8 = quantize(network, [batch])
    ids, mask = batch["input_ids"], batch["attention_mask"]
    for inputs in (batch, dict(reversed(batch.items())), (ids, mask), {"attention_mask": mask, "input_ids": ids}):
        found = int8_inputs(int8, inputs, network)
        assert found[0] is ids
        assert found[1] is mask
    assert int8_inputs(int8, dict(reversed(batch.items())))[0] is ids
    with pytest.raises(ValueError, match="`inputs` should contain attention_mask, got input_ids"):
        int8_inputs(int8, {"input_ids": ids})
