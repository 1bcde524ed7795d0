"""Where a NaN comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def all_finite(value: Any) -> bool:
    """Return whether every floating-point tensor in ``value`` is finite throughout."""
    tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def first_nonfinite(model: nn.Module, forward: Callable[[], Any]) -> str:
    """Run ``forward`` again and say which module was the first with an output that is not finite.

    Buffers and the random state are as before afterwards.

    Args:
        model: Whose modules are watched.
        forward: Runs the model as the step did.

    """
    found: list[str] = []
    names = {module: name for name, module in model.named_modules() if name}

    def look(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not found and not all_finite(output):
            weights = all_finite(list(module.parameters(recurse=False)))
            inputs = all_finite((args, kwargs))
            why = (
                "its weights are not finite" if not weights else "its inputs are finite" if inputs else "so its inputs"
            )
            found.append(f"`{names[module]}` ({type(module).__name__}; {why})")

    handles = [module.register_forward_hook(look, with_kwargs=True) for module in names]
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=[device.index for device in devices]), torch.no_grad():
            forward()
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return f"the first module whose output was not finite is {found[0]}"
    return "every module's output was finite, so the loss itself or its inputs are to blame"
