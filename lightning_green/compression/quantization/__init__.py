"""Fake quantization, and conversion to networks that compute with integers (pure torch)."""

from lightning_green.compression.quantization.agreement import Agreement, agreement
from lightning_green.compression.quantization.quantized_network import QuantizedNetwork, quantize

__all__ = [
    "Agreement",
    "QuantizedNetwork",
    "agreement",
    "quantize",
]
