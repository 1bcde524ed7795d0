"""Search for the module that produces a non-finite value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def all_finite(value: Any) -> bool:
    """Return whether all floating-point tensors in ``value``, a tree of containers, are finite."""
    tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def first_nonfinite(model: nn.Module, forward: Callable[[], Any]) -> str:
    """Run ``forward`` without gradients and describe the first module with a non-finite output.

    Buffers and the random states of Python, NumPy and PyTorch are restored afterwards.

    Args:
        model: Model whose submodules are checked.
        forward: Runs the forward pass of the training step.

    Returns:
        The description, as the end of a sentence.

    """
    found: list[str] = []
    names = {module: name for name, module in model.named_modules() if name}

    def check(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if found or all_finite(output):
            return
        if not all_finite(list(module.parameters(recurse=False))):
            cause = "its weights are not finite"
        elif all_finite((args, kwargs)):
            cause = "its inputs are finite"
        else:
            cause = "its inputs are not finite"
        found.append(f"`{names[module]}` ({type(module).__name__}; {cause})")

    handles = [module.register_forward_hook(check, with_kwargs=True) for module in names]
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    try:
        with isolate_rng(), torch.no_grad():
            forward()
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return f"the first module with a non-finite output is {found[0]}"
    return "the outputs of all modules are finite, so the cause is the loss function or its inputs"
