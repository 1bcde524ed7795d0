"""Description of a network's call: everything except the values of its tensors and the sizes that may differ."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_green.compression.inputs import CONSTANTS, Inputs, input_names, tensors_of
from lightning_green.compression.network import own_forward

DynamicSizes = Mapping[str, Sequence[int]]
"""Dimensions whose size differs from call to call, besides that of the samples, by the name of a tensor."""
_MOST_ALTERNATIVES = 8


@dataclass(frozen=True)
class TensorDescription:
    """A tensor in the inputs of a network.

    Args:
        shape: Its sizes.
        dtype: Name of its data type, such as ``"float32"``.
        low: Smallest value of integers; 0 for others.
        high: Largest value of integers.
        has_samples: Whether dimension 0 is that of the samples, of which other calls may have another number.
        dynamic: Other dimensions whose size may differ.

    """

    shape: tuple[int, ...]
    dtype: str
    low: int
    high: int
    has_samples: bool
    dynamic: tuple[int, ...]

    @property
    def variable(self) -> tuple[int, ...]:
        """All dimensions whose size may differ."""
        return (0, *self.dynamic) if self.has_samples else self.dynamic

    def fits(self, other: Any) -> bool:
        """Return whether a value is such a tensor. Floating-point types count as one, because autocast changes them."""
        if not isinstance(other, Tensor) or other.dim() != len(self.shape):
            return False
        dtype = getattr(torch, self.dtype)
        if other.dtype != dtype and not (other.is_floating_point() and dtype.is_floating_point):
            return False
        sizes = enumerate(zip(self.shape, other.shape, strict=True))
        return all(ours == theirs or dimension in self.variable for dimension, (ours, theirs) in sizes)

    def example(self, device: torch.device, batch: int | None) -> Tensor:
        """Return a tensor of the description; see ``CallDescription.examples``."""
        dtype = getattr(torch, self.dtype)
        sizes = [max(size, 2) if dimension in self.variable else size for dimension, size in enumerate(self.shape)]
        if batch is not None and self.has_samples:
            sizes[0] = batch
        count = torch.Size(sizes).numel()
        if dtype.is_floating_point or dtype.is_complex:
            return torch.linspace(-1.0, 1.0, max(count, 1), device=device)[:count].view(sizes).to(dtype)
        # Alternating along rows and along samples, so that samples differ.
        position = torch.arange(count, device=device)
        row = max(1, count // sizes[0]) if sizes and sizes[0] else 1
        odd = (position % row + position // row) % 2 == 1
        return torch.where(odd, self.high, self.low).view(sizes).to(dtype)


@dataclass(frozen=True)
class CallDescription:
    """Structure, constants, shapes and data types of the inputs of a call.

    Args:
        structure: The containers, as text.
        leaves: Constants and descriptions of tensors.

    """

    structure: str
    leaves: tuple[Any, ...]

    @classmethod
    def of(cls, network: nn.Module, inputs: Inputs, dynamic: DynamicSizes | None = None) -> CallDescription:
        """Return the description of a call.

        Dimension 0 of the first tensor is that of the samples, and so is dimension 0 of tensors of the same size.

        Args:
            network: The network.
            inputs: Its inputs.
            dynamic: Other dimensions whose size may differ, by the names of ``input_names``.

        Raises:
            ValueError: If there is something other than tensors, constants and containers of them, or no tensor; or
                ``dynamic`` has a name or a dimension that does not exist.

        """
        leaves, structure = pytree.tree_flatten(inputs)
        unknown = sorted({type(leaf).__name__ for leaf in leaves if not isinstance(leaf, (Tensor, *CONSTANTS))})
        try:
            text = pytree.treespec_dumps(structure)
        except (NotImplementedError, TypeError):
            unknown = ["a container of another class"]
        tensors = tensors_of(inputs)
        if unknown or not tensors:
            raise ValueError(
                f"`model` should be the dotted path of a network that is called with tensors, numbers, strings, or "
                f"lists, tuples and dictionaries of them, but {type(network).__name__} was called with "
                f"{', '.join(unknown) or 'no tensor'}."
            )
        named = dict(zip(input_names(network, inputs), tensors, strict=True))
        others = iter(_dimensions(network, named, dynamic or {}))
        samples = _samples(tuple(tensor.shape) for tensor in tensors)
        return cls(
            text,
            tuple(_describe(leaf, samples, next(others)) if isinstance(leaf, Tensor) else leaf for leaf in leaves),
        )

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> CallDescription:
        """Return the description of a checkpoint. Those of earlier versions do not contain the dynamic dimensions."""
        shapes = [tuple(leaf[0]) for leaf in state["leaves"] if isinstance(leaf, tuple)]
        samples = _samples(shapes)
        leaves = []
        for leaf in state["leaves"]:
            if isinstance(leaf, tuple):
                shape, dtype, low, high, *more = leaf
                has_samples, dynamic = more or (bool(shape) and shape[0] == samples, ())
                leaf = TensorDescription(tuple(shape), dtype, low, high, has_samples, tuple(dynamic))
            leaves.append(leaf)
        return cls(state["structure"], tuple(leaves))

    def state(self) -> dict[str, Any]:
        """Return the description in plain types, for a checkpoint."""
        leaves = [
            (list(leaf.shape), leaf.dtype, leaf.low, leaf.high, leaf.has_samples, list(leaf.dynamic))
            if isinstance(leaf, TensorDescription)
            else leaf
            for leaf in self.leaves
        ]
        return {"structure": self.structure, "leaves": leaves}

    @property
    def tensors(self) -> list[TensorDescription]:
        """The descriptions of the tensors, in their order."""
        return [leaf for leaf in self.leaves if isinstance(leaf, TensorDescription)]

    @cached_property
    def _containers(self) -> pytree.TreeSpec:
        return pytree.treespec_loads(self.structure)

    def fits(self, inputs: Inputs) -> bool:
        """Return whether inputs differ from the described ones only in values of tensors and in dynamic sizes."""
        leaves, structure = pytree.tree_flatten(inputs)
        if structure != self._containers:
            return False
        samples: set[int] = set()
        for ours, theirs in zip(self.leaves, leaves, strict=True):
            if isinstance(ours, TensorDescription):
                if not ours.fits(theirs):
                    return False
                samples.update(theirs.shape[:1] if ours.has_samples else ())
            elif type(ours) is not type(theirs) or ours != theirs:
                return False
        return len(samples) <= 1

    def examples(self, device: torch.device, batch: int | None = None) -> Inputs:
        """Return inputs of the description.

        Floating-point inputs are evenly spaced numbers in [-1, 1]. Integers alternate between the smallest and the
        largest described value, which are valid indices, classes and masks. No random generator is used.

        Args:
            device: Device of the tensors.
            batch: Number of samples; None for the described number.

        """
        made = [leaf.example(device, batch) if isinstance(leaf, TensorDescription) else leaf for leaf in self.leaves]
        inputs = pytree.tree_unflatten(made, self._containers)
        assert isinstance(inputs, (tuple, dict))
        return inputs

    def with_dynamic(self, other: CallDescription) -> CallDescription:
        """Return the description with the dynamic dimensions of another one of the same tensors."""
        if len(self.leaves) != len(other.leaves):
            return self
        leaves = [
            dataclasses.replace(ours, has_samples=theirs.has_samples, dynamic=theirs.dynamic)
            if isinstance(ours, TensorDescription) and isinstance(theirs, TensorDescription)
            else ours
            for ours, theirs in zip(self.leaves, other.leaves, strict=True)
        ]
        return dataclasses.replace(self, leaves=tuple(leaves))

    def alternatives(self) -> Iterator[CallDescription]:
        """Yield the description, then those in which some tensors are as large as the batch by coincidence.

        A mask of attention, for example, has no samples, and is as large as a batch of the same size.
        """
        places = [place for place, leaf in enumerate(self.leaves) if getattr(leaf, "has_samples", False)]
        some = (itertools.combinations(places[1:], count) for count in range(len(places)))
        for chosen in itertools.islice(itertools.chain.from_iterable(some), _MOST_ALTERNATIVES):
            leaves = list(self.leaves)
            for place in chosen:
                leaves[place] = dataclasses.replace(leaves[place], has_samples=False)
            yield dataclasses.replace(self, leaves=tuple(leaves))


def shapes_of(tensors: Sequence[TensorDescription], batch: Any, other: Any) -> tuple[dict[int, Any], ...]:
    """Return the dimensions of each tensor whose size may differ, as ``torch.export`` takes them.

    Args:
        tensors: Descriptions of the tensors.
        batch: For the samples: a ``torch.export.Dim`` or a name.
        other: For each of the other dimensions.

    """
    return tuple(
        ({0: batch} if tensor.has_samples else {}) | dict.fromkeys(tensor.dynamic, other) for tensor in tensors
    )


def check_dynamic(dynamic: Any) -> None:
    """Raise a ``TypeError`` if ``dynamic`` is not a dictionary of lists of numbers."""
    if dynamic is None:
        return
    if not isinstance(dynamic, Mapping) or not all(
        isinstance(dimensions, Sequence)
        and not isinstance(dimensions, str)
        and all(isinstance(one, int) and not isinstance(one, bool) for one in dimensions)
        for dimensions in dynamic.values()
    ):
        raise TypeError(
            f"`dynamic` should be a dictionary of lists of dimensions, such as {{'tokens': [1]}}, got {dynamic!r}."
        )


def _describe(tensor: Tensor, samples: int | None, others: tuple[int, ...]) -> TensorDescription:
    low = high = 0
    if not tensor.is_floating_point() and not tensor.is_complex() and tensor.numel():
        low, high = int(tensor.min()), int(tensor.max())
    has_samples = tensor.dim() > 0 and tensor.shape[0] == samples and 0 not in others
    dtype = str(tensor.dtype).removeprefix("torch.")
    return TensorDescription(tuple(tensor.shape), dtype, low, high, has_samples, others)


def _samples(shapes: Any) -> int | None:
    """Return the size of dimension 0 of the first tensor that has one."""
    return next((int(shape[0]) for shape in shapes if shape), None)


def _dimensions(network: nn.Module, named: Mapping[str, Tensor], dynamic: DynamicSizes) -> list[tuple[int, ...]]:
    """Return the dimensions of ``dynamic`` for each tensor; a call may leave arguments out."""
    parameters = inspect.signature(own_forward(network)).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in set(dynamic) - set(named):
        inside = [one for one in named if one.startswith(f"{name}_")]
        if inside:
            raise ValueError(f"`dynamic` should name the tensors of `{name}`: {', '.join(inside)}; got {name}.")
        # an argument, or a tensor in one, that this call has left out
        if not takes_any and not any(name == one or name.startswith(f"{one}_") for one in parameters):
            raise ValueError(
                f"`dynamic` should name inputs of {type(network).__name__}: {', '.join(named)}; got {name}."
            )
    found = []
    for name, tensor in named.items():
        wanted = dynamic.get(name, ())
        if any(not -tensor.dim() <= dimension < tensor.dim() for dimension in wanted):
            raise ValueError(
                f"`dynamic` should contain dimensions of `{name}`, which has {tensor.dim()}, got {list(wanted)}."
            )
        found.append(tuple(dimension % tensor.dim() for dimension in wanted))
    return found
