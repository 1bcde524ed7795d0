"""The network inside a ``LightningModule``, its modes and its own forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def find_network(module: nn.Module, path: str | None, argument: str = "model") -> nn.Module:
    """Return the submodule at a dotted path, or the only child that has parameters.

    Args:
        module: The module that contains the network, such as a ``LightningModule``.
        path: Dotted path; ``""`` is the module itself, None its only child with parameters, or the module itself if its
            parameters are its own.
        argument: The user's argument, for the message.

    Raises:
        ValueError: If the path does not exist, or if it is None and the number of such children is not one.

    """
    children = [name for name, child in module.named_children() if any(True for _ in child.parameters())]
    if path is None:
        if not children and any(True for _ in module.parameters()):
            return module
        if not children:
            raise ValueError(
                f"`{argument}` cannot be found, because {type(module).__name__} has no child with parameters when "
                "callbacks are set up. Build the network in `__init__` and not in `configure_model` or `setup`."
            )
        if len(children) != 1:
            raise ValueError(
                f"`{argument}` should be the dotted path of the network inside {type(module).__name__}, or '' for "
                f"{type(module).__name__} itself, because it has {len(children)} children with parameters "
                f"({', '.join(children)}), got None."
            )
        path = children[0]
    try:
        return module.get_submodule(path)
    except AttributeError:
        known = ", ".join(children) or "none"
        raise ValueError(
            f"`{argument}` should be the dotted path of a submodule of {type(module).__name__} (children: {known}), "
            f"got {path!r}."
        ) from None


@contextmanager
def restored_modes(module: nn.Module) -> Iterator[None]:
    """Restore the training or evaluation mode of a module and all of its submodules at the end of the context."""
    modes = {submodule: submodule.training for submodule in module.modules()}
    try:
        yield
    finally:
        for submodule, training in modes.items():
            submodule.training = training


def uncompiled(module: nn.Module) -> nn.Module:
    """Return the module that ``torch.compile`` wrapped, or the module itself."""
    inner = getattr(module, "_orig_mod", module)
    assert isinstance(inner, nn.Module)
    return inner


class ReplacedForward:
    """A replacement of a network's ``forward``, an attribute of the network.

    Args:
        plain: The attribute ``forward`` that the network had before; None for the method of its class.

    """

    def __init__(self, plain: Any) -> None:
        self.plain = plain


class _Computed(ReplacedForward):
    def __init__(self, compute: Callable[..., Any], plain: Any) -> None:
        super().__init__(plain)
        self._compute = compute

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._compute(*args, **kwargs)


@contextmanager
def replaced_forward(network: nn.Module, compute: Callable[..., Any]) -> Iterator[None]:
    """Compute a network's calls with another callable inside the context."""
    plain = network.__dict__.get("forward")
    network.forward = _Computed(compute, plain)
    try:
        yield
    finally:
        if plain is None:
            del network.forward
        else:
            network.forward = plain


def own_forward(network: nn.Module) -> Callable[..., Any]:
    """Return a network's ``forward`` without a replacement."""
    current = network.__dict__.get("forward")
    if isinstance(current, ReplacedForward):
        current = current.plain
    forward: Callable[..., Any] = type(network).forward.__get__(network) if current is None else current
    return forward
