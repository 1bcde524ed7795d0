"""Modules that compute in float32 inside a mixed-precision model."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle


def find_modules(model: nn.Module, wanted: Sequence[str | type[nn.Module]]) -> dict[str, nn.Module]:
    """Return the modules that match, by name.

    Args:
        model: Where to look.
        wanted: Shell patterns of names (``"head"``, ``"*norm*"``) or types.

    Raises:
        ValueError: If a pattern or a type matches nothing.

    """
    named = {name: module for name, module in model.named_modules() if name}
    found: dict[str, nn.Module] = {}
    for want in wanted:
        if isinstance(want, str):
            matches = {name: module for name, module in named.items() if fnmatchcase(name, want)}
        else:
            matches = {name: module for name, module in named.items() if isinstance(module, want)}
        if not matches:
            shown = ", ".join(list(named)[:8])
            raise ValueError(
                f"`keep_fp32`: {want!r} matches no module of {type(model).__name__}; its modules are {shown}"
                f"{', ...' if len(named) > 8 else ''}."
            )
        found.update(matches)
    return found


def _to_float32(value: Any) -> Any:
    low = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if low else value


def keep_in_float32(modules: Sequence[nn.Module], device_type: str) -> list[RemovableHandle]:
    """Have ``modules`` compute in float32 under autocast; return what removes it.

    Hooks, so that no ``forward`` is replaced: torch.compile traces them and a recomputation under gradient
    checkpointing runs them again.
    """
    handles = []
    for module in modules:
        before: list[bool] = []  # a stack, because a module may call itself

        def enter(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], before: list[bool] = before
        ) -> tuple[Any, Any]:
            before.append(torch.is_autocast_enabled(device_type))
            if not before[-1]:
                return args, kwargs
            torch.set_autocast_enabled(device_type, False)
            return tree_map(_to_float32, args), tree_map(_to_float32, kwargs)

        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any, before: list[bool] = before) -> None:
            if before:  # none where a graph in the module's place calls the hooks after it, and not those before it
                torch.set_autocast_enabled(device_type, before.pop())

        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(leave, with_kwargs=True, always_call=True))
    return handles
