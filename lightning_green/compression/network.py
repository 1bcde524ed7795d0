"""The network inside a ``LightningModule`` and the shapes of its inputs."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

TensorSpec = tuple[list[int], str]


def find_network(module: nn.Module, path: str | None, argument: str = "model") -> nn.Module:
    """Return the submodule at a dotted path, or the only child that has parameters.

    Args:
        module: The module that contains the network, such as a ``LightningModule``.
        path: Dotted path; ``""`` is the module itself, None its only child with parameters.
        argument: The user's argument, for the message.

    Raises:
        ValueError: If the path does not exist, or if it is None and the number of such children is not one.

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


@contextmanager
def restored_modes(module: nn.Module) -> Iterator[None]:
    """Restore the training or evaluation mode of a module and all of its submodules at the end of the context."""
    modes = {submodule: submodule.training for submodule in module.modules()}
    try:
        yield
    finally:
        for submodule, training in modes.items():
            submodule.training = training


def batch_dimensions(inputs: tuple[Tensor, ...], batch: Any) -> tuple[dict[int, Any], ...]:
    """Return the dynamic dimensions of each input: dimension 0, if it is as large as that of the first input.

    Args:
        inputs: Inputs of a network.
        batch: Name of the dimension or a ``torch.export.Dim``.

    """
    size = inputs[0].shape[0]
    return tuple({0: batch} if tensor.dim() and tensor.shape[0] == size else {} for tensor in inputs)


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
    """Record the shapes and data types of a network's inputs at its first call.

    Attributes:
        spec: Shape and data type of each input; None before the first call.

    """

    def __init__(self) -> None:
        self.spec: list[TensorSpec] | None = None
        self._problem: str | None = None
        self._handle: RemovableHandle | None = None

    def attach(self, network: nn.Module) -> None:
        """Wait for the next call of a network, unless the inputs are known."""
        self.close()
        self._problem = None
        watched = weakref.ref(network)

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if module is watched():  # a deep copy has the same hook
                self._record(uncompiled(module), args, kwargs)

        self._handle = network.register_forward_pre_hook(hook, with_kwargs=True)

    def close(self) -> None:
        """Remove the hook; what was recorded is kept."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def has_seen_call(self) -> bool:
        """Return whether the inputs are known.

        Raises:
            ValueError: If an input of the call was not a tensor.

        """
        if self._problem is not None:
            raise ValueError(self._problem)
        return self.spec is not None

    def examples(self, device: torch.device, batch: int) -> tuple[Tensor, ...]:
        """Return inputs of the recorded shapes; see ``example_inputs``."""
        assert self.spec is not None
        return example_inputs(self.spec, device, batch)

    def _record(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.spec is None:
            arguments = positional(network, args, kwargs)
            if all(isinstance(a, Tensor) for a in arguments):
                self.spec = [(list(a.shape), str(a.dtype).removeprefix("torch.")) for a in arguments]
            else:
                types = ", ".join(type(a).__name__ for a in arguments)
                self._problem = f"{type(network).__name__} should be called with tensors only, got ({types})."
        self.close()


def example_inputs(spec: list[TensorSpec], device: torch.device, batch: int | None = None) -> tuple[Tensor, ...]:
    """Return inputs of the recorded shapes and data types.

    Integer inputs are zeros, which are valid indices. Other inputs are evenly spaced numbers in [-1, 1]. No random
    generator is used.

    Args:
        spec: Shape and data type of each input.
        device: Device of the inputs.
        batch: Size of dimension 0 instead of the recorded size, for the inputs that share it with the first.

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
