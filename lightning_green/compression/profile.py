"""Cost of a model: parameters, multiply-adds, bytes, and a prediction of the energy of one inference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_green.compression.network import restored_modes

# Energy of one 8-bit and one 32-bit multiply-add and of one byte read from DRAM, in joules, at 45 nm: Horowitz,
# "Computing's energy problem" (ISSCC 2014), figure 1.1.9: 0.2 + 0.03 pJ, 3.7 + 0.9 pJ, and 1.3 to 2.6 nJ for 64 bits.
_MAC_JOULES = {8: 0.23e-12, 32: 4.6e-12}
_DRAM_JOULES_PER_BYTE = 2.0e-9 / 8


@dataclass(frozen=True)
class Profile:
    """Cost of one call of a model.

    Args:
        parameters: Number of parameters.
        macs: Multiply-adds of linear and convolutional layers for one sample.
        weight_bytes: Size of parameters and buffers in bytes.
        activations: Number of output values of all layers for one sample.
        layers: Multiply-adds by layer for one sample.

    """

    parameters: int
    macs: int
    weight_bytes: int
    activations: int
    layers: dict[str, int]

    def predicted_joules(self, bits: int = 32) -> float:
        """Return the predicted energy of one inference in joules: the arithmetic, and one read of every weight.

        The constants are those of a 45 nm chip. Use the result to compare models; it is not a measurement. A real
        machine draws many times more energy.

        Args:
            bits: Bits of weights and activations, 8 or 32.

        Raises:
            ValueError: If ``bits`` is another number.

        """
        if bits not in _MAC_JOULES:
            raise ValueError(f"`bits` should be 8 or 32, got {bits!r}.")
        read = self.parameters * bits / 8
        return self.macs * _MAC_JOULES[bits] + read * _DRAM_JOULES_PER_BYTE


def profile(model: nn.Module, inputs: Tensor | tuple[Tensor, ...]) -> Profile:
    """Return the cost of one call of a model.

    Args:
        model: The model, which does not change.
        inputs: Inputs of the model.

    Examples:
        ```python
        profile(model, torch.randn(1, 3, 224, 224)).macs
        ```

    """
    arguments = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    samples = max(1, arguments[0].shape[0])
    macs: dict[str, int] = {}
    activations = 0

    def count(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            nonlocal activations
            if not isinstance(output, Tensor):
                return
            activations += output.numel()
            if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
                macs[name] = macs.get(name, 0) + _macs(module, args[0], output) // samples

        return hook

    handles: list[RemovableHandle] = []
    for name, module in model.named_modules():
        if not any(True for _ in module.children()):
            handles.append(module.register_forward_hook(count(name)))
    try:
        with restored_modes(model), torch.no_grad():
            model.eval()
            model(*arguments)
    finally:
        for handle in handles:
            handle.remove()
    tensors = [*model.parameters(), *model.buffers()]
    return Profile(
        parameters=sum(p.numel() for p in model.parameters()),
        macs=sum(macs.values()),
        weight_bytes=sum(t.numel() * t.element_size() for t in tensors),
        activations=activations // samples,
        layers=macs,
    )


def _macs(module: nn.Module, given: Tensor, output: Tensor) -> int:
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    assert isinstance(module, nn.modules.conv._ConvNd)
    kernel = math.prod(module.kernel_size)
    if module.transposed:  # every input value contributes to the whole kernel
        return given.numel() * kernel * module.out_channels // module.groups
    return output.numel() * kernel * module.in_channels // module.groups
