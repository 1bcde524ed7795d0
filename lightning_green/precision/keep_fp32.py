"""Modules that compute in float32 inside a mixed-precision model."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import config
from torch.utils._pytree import tree_map


def find_modules(model: nn.Module, wanted: Sequence[str | type[nn.Module]]) -> dict[str, nn.Module]:
    """Return the matching submodules of ``model`` by name.

    Args:
        model: Model to search.
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


class KeptModules:
    """The modules that compute in float32.

    Args:
        modules: The modules by name.

    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = dict(modules)
        self.called: set[str] = set()

    def never_called(self) -> list[str]:
        """Return the names of modules with parameters that were not called, nor traced by ``torch.compile``."""
        return [
            name
            for name, module in self.modules.items()
            if name not in self.called and any(True for _ in module.parameters())
        ]


@contextmanager
def keep_in_float32(modules: Mapping[str, nn.Module], device_type: str) -> Generator[KeptModules, None, None]:
    """Make ``modules`` compute in float32 under autocast while the context is active.

    Forward hooks change the inputs and disable autocast, so no ``forward`` is replaced: ``torch.compile`` traces them
    and the recomputation of gradient checkpointing runs them again.

    Args:
        modules: The modules by name.
        device_type: Type of the device, such as ``"cuda"``.

    """
    kept = KeptModules(modules)
    with ExitStack() as stack:
        if modules:
            stack.enter_context(_compile_backward_without_autocast())
        for name, module in modules.items():
            _register_hooks(module, device_type, stack, kept, name)
        yield kept


def _register_hooks(module: nn.Module, device_type: str, stack: ExitStack, kept: KeptModules, name: str) -> None:
    enabled: list[bool] = []  # a stack, because a module may call itself

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if torch.compiler.is_compiling():
            note_compiled()
        else:
            kept.called.add(name)
        enabled.append(torch.is_autocast_enabled(device_type))
        if not enabled[-1]:
            return args, kwargs
        torch.set_autocast_enabled(device_type, False)
        return tree_map(_to_float32, args), tree_map(_to_float32, kwargs)

    @torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
    def note_compiled() -> bool:
        kept.called.add(name)
        return True

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if enabled:  # empty if a compiled graph replaces the module and runs only the hooks after it
            torch.set_autocast_enabled(device_type, enabled.pop())

    stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
    stack.callback(module.register_forward_hook(after, with_kwargs=True, always_call=True).remove)


@contextmanager
def _compile_backward_without_autocast() -> Generator[None, None, None]:
    """Compile backward passes without autocast, as they run without ``torch.compile``.

    By default, a backward pass is compiled with the autocast state of the code around the forward pass. That lowers the
    precision of the gradients of float32 modules. A setting other than PyTorch's default is not changed.
    """
    default = "same_as_forward"
    if getattr(config, "backward_pass_autocast", None) != default:
        yield
        return
    config.backward_pass_autocast = "off"  # noqa: S105 - no password
    try:
        yield
    finally:
        config.backward_pass_autocast = default
