"""State of optimizers after a removal of channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils import _pytree as pytree


def slice_optimizer(
    optimizer: Optimizer,
    before: Mapping[str, nn.Parameter],
    after: Mapping[str, nn.Parameter],
    indices: Mapping[str, Tensor],
) -> None:
    """Replace the parameters of an optimizer after a removal of channels, and slice its state.

    Args:
        optimizer: An optimizer whose state passes ``check_states``.
        before: Parameters of the model by name, before the removal.
        after: Parameters of the model by name, after the removal.
        indices: Return value of ``remove_channels``.

    """
    names = {id(parameter): name for name, parameter in before.items()}
    for group in optimizer.param_groups:
        for position, old in enumerate(group["params"]):
            name = names.get(id(old))
            if name is None or after[name] is old:
                continue
            new = after[name]
            group["params"][position] = new
            state = optimizer.state.pop(old, None)
            if state is None:
                continue
            kept = indices.get(name)
            optimizer.state[new] = {key: _slice(key, value, old, kept) for key, value in state.items()}


def check_states(optimizers: Sequence[Optimizer]) -> None:
    """Check that the state of optimizers can be sliced.

    A tensor of the state has the shape of the parameter, or a single number, or it is factored, as in Adafactor
    (Shazeer and Stern, arXiv 1804.04235): with size 1 or without the dimension over which it is a mean.

    Raises:
        ValueError: If there is another tensor. The message contains the optimizer and the name of the state.

    """
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            if not isinstance(parameter, Tensor):  # of the optimizer as a whole
                continue
            for key, value in state.items():
                if not _is_known(key, value, parameter):
                    raise ValueError(
                        f"`granularity` 'channels' cannot resize the state {key!r} of {type(optimizer).__name__}, "
                        "which has neither the shape of the parameter nor a factor of it. Use another optimizer, such "
                        "as AdamW or SGD, or masks (`granularity` 'unstructured' or 'n:m')."
                    )


def _is_known(key: str, value: Any, parameter: Tensor) -> bool:
    if isinstance(value, Tensor):
        return value.numel() <= 1 or _as_factor(key, value, parameter.shape) is not None
    return not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))


def _as_factor(key: str, value: Tensor, shape: torch.Size) -> tuple[Tensor, int | None] | None:
    """Return a state with all dimensions of its parameter, some of size 1, and the dimension that it lacked.

    None if it has other sizes.
    """
    if len(shape) > 1 and value.dim() == len(shape) - 1:  # as in the Adafactor of Hugging Face
        of_rows, of_columns = value.shape == shape[:-1], value.shape == (*shape[:-2], shape[-1])
        if of_rows or of_columns:
            missing = len(shape) - (2 if of_columns and (not of_rows or "col" in key) else 1)
            return value.unsqueeze(missing), missing
    fits = value.dim() == len(shape) and all(size in (1, whole) for size, whole in zip(value.shape, shape, strict=True))
    return (value, None) if fits else None


def _slice(key: str, value: Any, old: Tensor, kept: Tensor | None) -> Any:
    """Return a state for the elements of a parameter that are kept."""
    if kept is None or not isinstance(value, Tensor) or value.numel() <= 1:
        return value
    found = _as_factor(key, value, old.shape)
    if found is None:
        return value
    factor, missing = found
    sliced = factor.expand(old.shape).flatten()[kept.to(value.device).flatten()].view(kept.shape)
    for dimension, size in enumerate(factor.shape):
        if size == 1:
            sliced = sliced.narrow(dimension, 0, 1)
    return (sliced if missing is None else sliced.squeeze(missing)).contiguous()
