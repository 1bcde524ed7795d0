"""Trials on copies of a network, on the CPU if the memory of the accelerator does not suffice."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_green.compression.inputs import Inputs

T = TypeVar("T")


def copied(model: nn.Module, device: torch.device | None = None) -> nn.Module:
    """Return a copy of a model, also between a forward and the next step.

    A layer with the older ``weight_norm`` keeps a weight that belongs to the graph of the last forward, which
    ``deepcopy`` refuses to copy.

    Args:
        model: The model.
        device: Device of the copy's tensors; None for that of each tensor.

    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in (*vars(module).values(), *module._parameters.values(), *module._buffers.values()):
            if not isinstance(value, Tensor) or id(value) in memo:
                continue
            if device is not None and value.device != device:
                moved = value.detach().to(device)
                is_parameter = isinstance(value, nn.Parameter)
                memo[id(value)] = nn.Parameter(moved, value.requires_grad) if is_parameter else moved
            elif not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(model, memo)


def within_memory(compute: Callable[[nn.Module, Inputs], T], model: nn.Module, inputs: Inputs) -> T:
    """Return the result of a trial, which is repeated on a copy on the CPU if the accelerator has too little memory.

    Args:
        compute: Takes a model, which it does not change, and its inputs.
        model: The network.
        inputs: Inputs of the network.

    """
    try:
        return compute(model, inputs)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
    cpu = torch.device("cpu")
    return compute(copied(model, cpu), pytree.tree_map_only(Tensor, lambda tensor: tensor.to(cpu), inputs))
