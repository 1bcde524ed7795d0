"""Models of the sizes that a checkpoint has: how a model with removed channels is built again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def load_pruned(
    model: nn.Module, checkpoint: str | Path | Mapping[str, Any], *, prefix: str = "", strict: bool = True
) -> nn.Module:
    """Give a model the sizes of a checkpoint with removed channels, and load it.

    ::

        model = load_pruned(LitModel(), "last.ckpt")
        network = load_pruned(ResNet(), "last.ckpt", prefix="network.")

    Args:
        model: The intact model; changed in place.
        checkpoint: A file, a Lightning checkpoint, or a state dict. A file is read with ``weights_only=True``.
        prefix: Load only the keys that start with this, without it.
        strict: As in ``load_state_dict``.

    Returns:
        The model.

    Raises:
        ValueError: If no key has the prefix.
        RuntimeError: If a size of the checkpoint does not fit the kind of layer, or keys differ.

    """
    if isinstance(checkpoint, (str, Path)):
        checkpoint = torch.load(checkpoint, map_location="cpu", weights_only=True)
        assert isinstance(checkpoint, Mapping)
    state = checkpoint.get("state_dict", checkpoint)
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not state:
        raise ValueError(f"`prefix` should start some key of the checkpoint, got {prefix!r}.")
    resize_to(model, state)
    model.load_state_dict(state, strict=strict)
    return model


def resize_to(model: nn.Module, state: Mapping[str, Tensor], prefix: str = "") -> bool:
    """Give the parameters and buffers of a model the shapes of a state dict, in place; values are left undefined.

    Args:
        model: The model.
        state: Tensors by name. Names that the model does not have are ignored, so are other numbers of dimensions.
        prefix: What stands before the model's names in ``state``.

    Returns:
        Whether anything changed.

    """
    changed = False
    for path, module in model.named_modules():
        start = f"{prefix}{path}." if path else prefix
        old = {name: tensor.shape for name, tensor in _own(module).items()}
        resized = False
        for name, tensor in _own(module).items():
            value = state.get(start + name)
            if value is None or value.shape == tensor.shape or value.dim() != tensor.dim():
                continue
            new = torch.empty(value.shape, dtype=tensor.dtype, device=tensor.device)
            if name in module._parameters:
                module._parameters[name] = nn.Parameter(new, requires_grad=tensor.requires_grad)
            else:
                module._buffers[name] = new
            resized = True
        if resized:
            _update_attributes(module, old.get("weight"))
        changed |= resized
    return changed


def _own(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers that a module holds itself."""
    tensors = [*module._parameters.items(), *module._buffers.items()]
    return {name: tensor for name, tensor in tensors if tensor is not None}


def _update_attributes(module: nn.Module, old: torch.Size | None) -> None:
    """Make a layer's numbers of channels agree with its tensors."""
    weight = module._parameters.get("weight")
    if isinstance(module, nn.modules.conv._ConvNd):
        assert weight is not None
        assert old is not None
        first, second = weight.shape[:2]
        if module.groups == module.in_channels and module.groups > 1:  # depthwise: one filter or more a channel
            module.groups = first * module.groups // old[0]
        if module.transposed:
            module.in_channels, module.out_channels = first, second * module.groups
        else:
            module.in_channels, module.out_channels = second * module.groups, first
    elif isinstance(module, nn.Linear):
        assert weight is not None
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        tensor = weight if weight is not None else module._buffers["running_mean"]
        assert tensor is not None
        module.num_features = tensor.shape[0]
    elif isinstance(module, nn.LayerNorm) and weight is not None:
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.PReLU) and weight is not None:
        module.num_parameters = weight.shape[0]
    elif isinstance(module, nn.Embedding) and weight is not None:
        module.num_embeddings, module.embedding_dim = weight.shape
