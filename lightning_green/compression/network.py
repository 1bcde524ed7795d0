"""The network inside a ``LightningModule``, its modes and its own forward."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_CONTAINERS = (dict, list, set, OrderedDict, defaultdict)


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


def own_attributes(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module that are no part of ``nn.Module``, and neither weights nor buffers."""
    return {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}


def contents_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return shallow copies of the containers among some attributes, which calls may change in place."""
    return {name: copy.copy(value) for name, value in attributes.items() if type(value) in _CONTAINERS}


def is_changed(container: Any, contents: Any) -> bool:
    """Return whether a container has other items than before; tensors are compared by identity."""
    return _identities(container) != _identities(contents)


def _identities(container: Any) -> list[Any]:
    if isinstance(container, dict):
        return [(key, id(value)) for key, value in container.items()]
    return [id(value) for value in container]


def set_contents(container: Any, contents: Any) -> None:
    """Give a container the contents that it had before."""
    container.clear()
    container.extend(contents) if isinstance(container, list) else container.update(contents)


@contextmanager
def kept_attributes(module: nn.Module) -> Iterator[None]:
    """Restore the attributes that calls set or change in place, such as caches, at the end of the context.

    A cache of a trial would otherwise be used in the training: with earlier weights, and with the graph of the trial.
    """
    before = [(one, attributes := own_attributes(one), contents_of(attributes)) for one in module.modules()]
    try:
        yield
    finally:
        for one, attributes, contents in before:
            for name in own_attributes(one).keys() - attributes:
                delattr(one, name)
            for name, value in attributes.items():
                vars(one)[name] = value
            for name, content in contents.items():
                if is_changed(attributes[name], content):  # another thread may read the others
                    set_contents(attributes[name], content)


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
