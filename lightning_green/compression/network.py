"""The network inside a module: which one it is, and what it is called with."""

from __future__ import annotations

import inspect
import weakref
from typing import Any

import torch
from torch import Tensor, nn

TensorSpec = tuple[list[int], str]


def find_network(module: nn.Module, path: str | None, argument: str = "model") -> nn.Module:
    """Return the submodule at a dotted path, or the only child that has parameters.

    Args:
        module: The module that holds the network, such as a ``LightningModule``.
        path: Dotted path; ``""`` is the module itself, None its only child with parameters.
        argument: The argument that the user set, for the message.

    Raises:
        ValueError: If the path does not exist, or None is not unambiguous.

    """
    children = [name for name, child in module.named_children() if any(True for _ in child.parameters())]
    if path is None:
        if len(children) != 1:
            raise ValueError(
                f"`{argument}` should be the dotted path of the network inside {type(module).__name__}, because it has "
                f"{len(children)} children with parameters ({', '.join(children) or 'none'}), got None."
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


def uncompiled(module: nn.Module) -> nn.Module:
    """Return the module that ``torch.compile`` wrapped, or the module itself."""
    inner = getattr(module, "_orig_mod", module)
    assert isinstance(inner, nn.Module)
    return inner


def positional(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Return a call's arguments in the order of the module's ``forward``, without trailing defaults.

    Raises:
        TypeError: If an argument is keyword-only.

    """
    if not kwargs:
        return args
    forward = inspect.signature(type(module).forward)
    bound = forward.bind(module, *args, **kwargs)
    if bound.kwargs:
        raise TypeError(
            f"{type(module).__name__}.forward should take positional arguments, got {sorted(bound.kwargs)}."
        )
    return bound.args[1:]


class InputRecorder:
    """Remembers the shapes and types of what a network is called with, from its first call on.

    Args:
        network: The network.

    """

    def __init__(self, network: nn.Module) -> None:
        self.spec: list[TensorSpec] | None = None
        self.problem: str | None = None
        self._network = uncompiled(network)
        watched = weakref.ref(network)

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if module is watched():  # a deep copy keeps the hook, but its calls are others
                self._record(args, kwargs)

        self._handle = network.register_forward_pre_hook(hook, with_kwargs=True)

    def _record(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.spec is None and self.problem is None:
            arguments = positional(self._network, args, kwargs)
            if all(isinstance(a, Tensor) for a in arguments):
                self.spec = [(list(a.shape), str(a.dtype).removeprefix("torch.")) for a in arguments]
            else:
                kinds = ", ".join(type(a).__name__ for a in arguments)
                self.problem = f"{type(self._network).__name__} should be called with tensors only, got ({kinds})."
        self.close()

    def close(self) -> None:
        """Stop to listen."""
        self._handle.remove()


def example_inputs(spec: list[TensorSpec], device: torch.device, batch: int | None = None) -> tuple[Tensor, ...]:
    """Return inputs of the recorded shapes and types.

    Zeros where they are integers (any index exists), a fixed pattern of numbers otherwise; no random generator is
    touched.

    Args:
        spec: Shape and type of each input.
        device: Where to put them.
        batch: Size of dimension 0 in place of the recorded one, for the inputs that share it with the first.

    """
    inputs = []
    size = spec[0][0][0] if spec and spec[0][0] else None
    for shape, name in spec:
        dtype = getattr(torch, name)
        sizes = [batch, *shape[1:]] if batch is not None and shape and shape[0] == size else shape
        count = torch.Size(sizes).numel()
        if dtype.is_floating_point:
            values = torch.linspace(-1.0, 1.0, max(count, 1), device=device)[:count].view(sizes).to(dtype)
        else:
            values = torch.zeros(sizes, dtype=dtype, device=device)
        inputs.append(values)
    return tuple(inputs)
