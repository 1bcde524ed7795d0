"""Inputs of a network's calls: one form for positional and keyword arguments, a description, and examples of it."""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.hooks import RemovableHandle

from lightning_green.compression.network import own_forward, uncompiled

CONSTANTS = (type(None), bool, int, float, str)
Inputs = tuple[Any, ...] | dict[str, Any]  # positional arguments, or arguments by keyword
InputSpec = dict[str, Any]


def call(network: Any, inputs: Inputs) -> Any:
    """Return the output of a network, or of another callable."""
    return network(**inputs) if isinstance(inputs, dict) else network(*inputs)


def as_inputs(batch: Tensor | tuple[Any, ...] | Mapping[str, Any]) -> Inputs:
    """Return a batch as inputs: a tensor is the only argument, a mapping has arguments by keyword."""
    if isinstance(batch, Tensor):
        return (batch,)
    return dict(batch) if isinstance(batch, Mapping) else tuple(batch)


def tensors_of(inputs: Any) -> list[Tensor]:
    """Return the tensors in inputs, in their order."""
    return [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]


def canonical(network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Inputs:
    """Return the arguments of a call in a form that does not depend on how they were passed.

    Arguments that equal their default are omitted. The others are positional, or all by keyword if an argument before
    them is omitted or they are keyword-only.

    Args:
        network: The network.
        args: Positional arguments.
        kwargs: Arguments by keyword.

    Raises:
        ValueError: If ``forward`` does not accept the arguments, or there are both ``*args`` and arguments by keyword.

    """
    try:
        bound = inspect.signature(own_forward(network)).bind(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`model` should be a network whose `forward` accepts the arguments of its calls, but that of "
            f"{type(network).__name__} does not: {error}."
        ) from None
    parameters = dict(bound.signature.parameters)
    kinds = {parameters[name].kind for name in bound.arguments}
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        for name, value in list(bound.arguments.items()):
            if _is_default(value, parameters[name].default):
                del bound.arguments[name]
    positional, keywords = bound.args, bound.kwargs
    if not keywords:
        return positional
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        raise ValueError(
            f"`model` should be a network without `*args` next to arguments by keyword, got {type(network).__name__}."
        )
    return dict(zip(parameters, positional, strict=False)) | dict(keywords)


def canonical_inputs(network: nn.Module, inputs: Inputs) -> Inputs:
    """Return inputs in the form of ``canonical``."""
    return canonical(network, (), inputs) if isinstance(inputs, dict) else canonical(network, inputs, {})


def same_call(one: Inputs, other: Inputs) -> bool:
    """Return whether two calls differ only in the values of tensors and in the number of samples.

    Floating-point types count as one, because autocast changes them.
    """
    (ours, our_structure), (theirs, their_structure) = pytree.tree_flatten(one), pytree.tree_flatten(other)
    if our_structure != their_structure:
        return False
    samples = batch_size(tuple(leaf for leaf in ours if isinstance(leaf, Tensor)))
    return all(_same_leaf(our, their, samples) for our, their in zip(ours, theirs, strict=True))


def input_names(network: nn.Module | None, inputs: Inputs) -> list[str]:
    """Return a name for each tensor of inputs: the parameter of ``forward``, and the place in a container.

    Args:
        network: The network; None if all inputs are arguments by keyword.
        inputs: Its inputs.

    """
    parameters = [] if network is None else list(inspect.signature(own_forward(network)).parameters.values())
    kinds = [parameter.kind for parameter in parameters]
    first_of_several = (
        kinds.index(inspect.Parameter.VAR_POSITIONAL) if inspect.Parameter.VAR_POSITIONAL in kinds else -1
    )
    names: list[str] = []
    for path, leaf in pytree.tree_flatten_with_path(inputs)[0]:
        if not isinstance(leaf, Tensor):
            continue
        place = pytree.keystr(path)
        if not isinstance(inputs, dict):
            position = path[0].idx  # type: ignore[attr-defined]
            if 0 <= first_of_several <= position:
                place = parameters[first_of_several].name + place
            else:
                place = parameters[position].name + pytree.keystr(path[1:])
        name = re.sub(r"\W+", "_", place).strip("_")
        names.append(name if name not in names else f"{name}_{len(names)}")
    return names


def batch_size(tensors: tuple[Tensor, ...]) -> int | None:
    """Return the size of dimension 0 of the first tensor that has one."""
    return next((int(tensor.shape[0]) for tensor in tensors if tensor.dim()), None)


def batch_dimensions(tensors: tuple[Tensor, ...], batch: Any) -> tuple[dict[int, Any], ...]:
    """Return the dynamic dimensions of each tensor: dimension 0, if it is as large as that of the first one.

    Args:
        tensors: Tensors in the inputs of a network.
        batch: Name of the dimension or a ``torch.export.Dim``.

    """
    size = batch_size(tensors)
    return tuple({0: batch} if tensor.dim() and tensor.shape[0] == size else {} for tensor in tensors)


def describe(inputs: Inputs, name: str) -> InputSpec:
    """Return structure, constants, shapes and data types of inputs in plain types, for a checkpoint.

    Args:
        inputs: Inputs of a network.
        name: Name of the network, for the message.

    Raises:
        ValueError: If there is something other than tensors, constants and containers of them, or no tensor.

    """
    leaves, structure = pytree.tree_flatten(inputs)
    unknown = sorted({type(leaf).__name__ for leaf in leaves if not isinstance(leaf, (Tensor, *CONSTANTS))})
    try:
        text = pytree.treespec_dumps(structure)
    except (NotImplementedError, TypeError):
        unknown = ["a container of another class"]
    if unknown or not tensors_of(inputs):
        raise ValueError(
            f"`model` should be the dotted path of a network that is called with tensors, numbers, strings, or lists, "
            f"tuples and dictionaries of them, but {name} was called with {', '.join(unknown) or 'no tensor'}."
        )
    described = [_describe_tensor(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    return {"structure": text, "leaves": described}


def examples(spec: InputSpec, device: torch.device, batch: int) -> Inputs:
    """Return inputs of a description.

    Floating-point inputs are evenly spaced numbers in [-1, 1]. Integers alternate between the smallest and the largest
    described value, which are valid indices, classes and masks. No random generator is used.

    Args:
        spec: Return value of ``describe``.
        device: Device of the tensors.
        batch: Size of dimension 0 instead of the described size, for the tensors that share it with the first one.

    """
    leaves = spec["leaves"]
    size = next((leaf[0][0] for leaf in leaves if isinstance(leaf, tuple) and leaf[0]), None)
    made = [_example(leaf, device, size, batch) if isinstance(leaf, tuple) else leaf for leaf in leaves]
    inputs = pytree.tree_unflatten(made, pytree.treespec_loads(spec["structure"]))
    assert isinstance(inputs, (tuple, dict))
    return inputs


class InputRecorder:
    """Record descriptions of a network's inputs: of its first call, then of its first call in training mode.

    Args:
        kinds: Number of different calls to record, such as those with other arguments in validation.

    Attributes:
        spec: The description of the first call in training mode; None before the first call.
        calls: The descriptions of all recorded calls.

    """

    def __init__(self, kinds: int = 1) -> None:
        self.spec: InputSpec | None = None
        self.calls: list[InputSpec] = []
        self._kinds, self._seen = kinds, list[Inputs]()  # examples without data
        self._in_training = False
        self._problem: str | None = None
        self._handles: list[RemovableHandle] = []
        self._paused = False

    def attach(self, network: nn.Module) -> None:
        """Wait for the next calls of a network."""
        self.close()
        self._problem = None
        watched = weakref.ref(network)
        forwards: list[Any] = []  # of the calls that have begun

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            if module is watched():  # a deep copy has the same hooks
                forwards.append(module.__dict__.get("forward"))

        def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if module is not watched() or not forwards:
                return
            # Under DDP, Lightning calls training_step as a `forward` that replaces itself: not a call of the network.
            is_forward = forwards.pop() is module.__dict__.get("forward")
            if is_forward and not self._paused and output is not None:
                self._record(uncompiled(module), args, kwargs, module.training)

        self._handles = [
            network.register_forward_pre_hook(before),
            network.register_forward_hook(after, with_kwargs=True, always_call=True),
        ]

    def close(self) -> None:
        """Remove the hooks; what was recorded is kept."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Record nothing inside the context, in which the network is traced and not called by the user."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def restore(self, spec: InputSpec | None) -> None:
        """Use a description from a checkpoint."""
        if spec is not None:
            self.spec, self._in_training = spec, True
            self._add(spec)
            self._close_if_complete()

    def has_seen_call(self) -> bool:
        """Return whether the inputs are known.

        Raises:
            ValueError: If the arguments of the only calls so far are not supported.

        """
        if self.spec is None:
            self.require_supported()
        return self.spec is not None

    def require_supported(self) -> None:
        """Raise a ``ValueError`` if the arguments of a call are not supported."""
        if self._problem is not None:
            raise ValueError(self._problem)

    def require_call(self, network: nn.Module) -> None:
        """Raise a ``ValueError`` if the network has not been called."""
        if not self.has_seen_call():
            raise ValueError(
                f"`model` should be a network that training_step calls, but {type(network).__name__} has not been "
                "called as a whole, so its inputs are unknown. Call the module and not its parts, or its `forward`."
            )

    def examples(self, device: torch.device, batch: int) -> Inputs:
        """Return inputs of the recorded description; see ``examples``."""
        assert self.spec is not None
        return examples(self.spec, device, batch)

    def _record(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], training: bool) -> None:
        try:
            inputs = canonical(network, args, kwargs)
            first = self.spec is None or (training and not self._in_training)
            if first or not any(same_call(seen, inputs) for seen in self._seen):
                spec = describe(inputs, type(network).__name__)
                self._add(spec)
                if first:
                    self.spec = spec
        except ValueError as error:
            self._problem = str(error)
        self._in_training = self._in_training or training
        self._close_if_complete()

    def _add(self, spec: InputSpec) -> None:
        seen = examples(spec, torch.device("meta"), batch=2)
        if not any(same_call(other, seen) for other in self._seen):
            self.calls.append(spec)
            self._seen.append(seen)

    def _close_if_complete(self) -> None:
        if self._in_training and len(self.calls) >= self._kinds:
            self.close()


def _is_default(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, CONSTANTS) and type(value) is type(default) and value == default)


def _same_leaf(one: Any, other: Any, samples: int | None) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return type(one) is type(other) and not isinstance(one, Tensor) and bool(one == other)
    if one.dtype != other.dtype and not (one.is_floating_point() and other.is_floating_point()):
        return False
    first = 1 if one.dim() and one.shape[0] == samples else 0
    return one.dim() == other.dim() and one.shape[first:] == other.shape[first:]


def _describe_tensor(tensor: Tensor) -> tuple[list[int], str, int, int]:
    low = high = 0
    if not tensor.is_floating_point() and not tensor.is_complex() and tensor.numel():
        low, high = int(tensor.min()), int(tensor.max())
    return list(tensor.shape), str(tensor.dtype).removeprefix("torch."), low, high


def _example(leaf: tuple[list[int], str, int, int], device: torch.device, size: int | None, batch: int) -> Tensor:
    shape, name, low, high = leaf
    dtype = getattr(torch, name)
    sizes = [batch, *shape[1:]] if shape and shape[0] == size else shape
    count = torch.Size(sizes).numel()
    if dtype.is_floating_point or dtype.is_complex:
        return torch.linspace(-1.0, 1.0, max(count, 1), device=device)[:count].view(sizes).to(dtype)
    # Alternating along rows and along samples, so that samples differ.
    position = torch.arange(count, device=device)
    row = max(1, count // sizes[0]) if sizes and sizes[0] else 1
    odd = (position % row + position // row) % 2 == 1
    return torch.where(odd, high, low).view(sizes).to(dtype)
