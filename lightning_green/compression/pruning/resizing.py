"""Loading of checkpoints with removed channels into an intact model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def load_pruned(
    model: nn.Module, checkpoint: str | Path | Mapping[str, Any], *, prefix: str = "", strict: bool = True
) -> nn.Module:
    """Load a checkpoint with removed channels into a model, whose layers are resized first.

    Args:
        model: The intact model, which is changed in place.
        checkpoint: A file, a Lightning checkpoint, or a state dict. A file is read with ``weights_only=True``.
        prefix: Load only the keys with this prefix, without the prefix.
        strict: As in ``load_state_dict``.

    Returns:
        The model.

    Raises:
        ValueError: If no key has the prefix.
        RuntimeError: If a shape of the checkpoint does not fit the layer, or keys differ.

    Examples:
        ```python
        model = load_pruned(LitModel(), "last.ckpt")
        network = load_pruned(ResNet(), "last.ckpt", prefix="network.")
        ```

    """
    if isinstance(checkpoint, (str, Path)):
        checkpoint = torch.load(checkpoint, map_location="cpu", weights_only=True)
        assert isinstance(checkpoint, Mapping)
    state = checkpoint.get("state_dict", checkpoint)
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not state:
        raise ValueError(f"`prefix` should be the prefix of a key in the checkpoint, got {prefix!r}.")
    resize_to(model, state)
    model.load_state_dict(state, strict=strict)
    return model


def resize_to(model: nn.Module, state: Mapping[str, Tensor], prefix: str = "") -> bool:
    """Give the parameters and buffers of a model the shapes of a state dict, in place. Their values are undefined.

    Args:
        model: The model.
        state: Tensors by name. Unknown names and tensors with another number of dimensions are ignored.
        prefix: Prefix of the model's names in ``state``.

    Returns:
        Whether a shape changed.

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
    """Return the parameters and buffers of a module, without those of its children."""
    tensors = [*module._parameters.items(), *module._buffers.items()]
    return {name: tensor for name, tensor in tensors if tensor is not None}


def _update_attributes(module: nn.Module, old: torch.Size | None) -> None:
    """Update a layer's numbers of channels from its tensors."""
    weight = module._parameters.get("weight")
    if isinstance(module, nn.modules.conv._ConvNd):
        assert weight is not None
        assert old is not None
        first, second = weight.shape[:2]
        if module.groups == module.in_channels and module.groups > 1:  # depthwise: one or more filters per channel
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
