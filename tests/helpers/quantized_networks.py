"""Small networks trained in fake quantization."""

import torch
from torch import nn

from lightning_green.compression.quantization.quantized_network import QuantizedNetwork
from tests.helpers.compression_networks import Inception, Mixed, SmallResNet

IMAGES = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(3))
NETWORKS = [SmallResNet, Mixed, Inception]


def trained(network, steps=12):
    """Return a network after a few training steps, and its fake quantization."""
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    target = IMAGES.mean((2, 3)).argmax(1)
    quantized = QuantizedNetwork(model, (IMAGES[:2],))
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(quantized.run(IMAGES), target).backward()
        optimizer.step()
    model.eval()
    return model, quantized
