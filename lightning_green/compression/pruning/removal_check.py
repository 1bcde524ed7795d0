"""Whether channels can be removed: the smaller network must compute what the network with zeros in their place does.

The dependency graph follows channels through the operations that it knows. Through others, such as a view that mixes
channels with positions, it may remove the wrong ones: with an error in the next step, or without one. Each removal is
therefore tried on a copy of the network and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from lightning_green.compression.inputs import Inputs, call, tensors_of
from lightning_green.compression.outputs import compared_tensors
from lightning_green.compression.pruning.channel_graph import ChannelGraph, kept_random_states
from lightning_green.compression.pruning.device_memory import copied

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
OUTPUTS = "they are outputs of the network"
_TOLERANCE = 1e-6  # of the largest output, in double precision


def find_wrong_removals(model: nn.Module, inputs: Inputs, widths: Mapping[str, int]) -> dict[str, str]:
    """Return the layers whose channels cannot be removed, and why.

    About half of the channels of all layers are removed from one copy. Only if that is wrong, the layers are divided.

    Args:
        model: The network, which does not change.
        inputs: Inputs of the network: positional arguments, or a dictionary of arguments by keyword.
        widths: Number of channels of each layer to try, the first of its group.

    """
    generator = torch.Generator().manual_seed(0)
    removals = {}
    for name, width in widths.items():
        order = torch.randperm(width, generator=generator).tolist()
        removals[name] = sorted(order[: width // 2])

    def why_wrong(names: list[str]) -> str:
        return _why_wrong(model, inputs, {name: removals[name] for name in names})

    shapes = _output_shapes(model, inputs)
    sizes = {size for shape in shapes for size in shape}
    wrong: dict[str, str] = {}
    for name in (name for name, width in widths.items() if width in sizes):  # most of these are outputs of the network
        with suppress(ValueError):
            smaller = copied(model)
            ChannelGraph(smaller, inputs).remove(name, removals[name])
            if _output_shapes(smaller, inputs) != shapes:
                wrong[name] = OUTPUTS
    together = [name for name in widths if name not in wrong]
    wrong |= dict(_divide(why_wrong, together))
    right = [name for name in widths if name not in wrong]
    if right != together and right and why_wrong(right):
        accepted: list[str] = []
        for name in right:  # some are right alone and wrong together
            if why := why_wrong([*accepted, name]):
                wrong[name] = why
            else:
                accepted.append(name)
    return wrong


def _output_shapes(model: nn.Module, inputs: Inputs) -> list[torch.Size]:
    try:
        return [tensor.shape for tensor in _outputs(copied(model), inputs, training=False)]
    except torch.OutOfMemoryError:
        raise
    except Exception:  # noqa: BLE001 - such as of a data type; the comparison reports it
        return []


def _divide(why_wrong: Callable[[list[str]], str], names: list[str]) -> Iterator[tuple[str, str]]:
    why = why_wrong(names) if names else ""
    if why and len(names) == 1:
        yield names[0], why
    elif why:
        middle = len(names) // 2
        yield from _divide(why_wrong, names[:middle])
        yield from _divide(why_wrong, names[middle:])


def _why_wrong(model: nn.Module, inputs: Inputs, removals: Mapping[str, list[int]]) -> str:
    """Return why a network without channels differs from one with zeros in their place; an empty string if not."""
    # In double precision, in which the order of a sum makes no difference that a wrong channel could hide in.
    whole, smaller = copied(model).double(), copied(model).double()
    inputs = pytree.tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs)
    try:
        kept = remove_and_index(smaller, inputs, removals)
        _set_zeros(whole, smaller, kept)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - of a library, about layers of any kind
        return f"the graph of its channels is unknown ({type(error).__name__})"
    both = _concatenate(inputs, _random(inputs))
    has_compared = False
    for training in (True, False):  # training updates running statistics, which the evaluation then reads
        # Batch norm refuses to train on one sample, and some networks refuse two.
        for one in (both, inputs):
            why = _compare(whole, smaller, one, training)
            if why:
                return why
            if why is not None:
                has_compared = True
                break
    return "" if has_compared else "two calls of the network with the same inputs differ"


def _compare(whole: nn.Module, smaller: nn.Module, inputs: Inputs, training: bool) -> str | None:
    """Return how the outputs of two networks differ; an empty string if not, None if they cannot be compared."""
    try:
        expected = _outputs(whole, inputs, training)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # noqa: BLE001 - the network itself does not accept such a call
        return None
    try:
        found = _outputs(smaller, inputs, training)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - of any kind
        return f"the network without them fails ({type(error).__name__})"
    same_shapes = [one.shape for one in found] == [one.shape for one in expected]
    if same_shapes and all(_is_close(a, b) for a, b in zip(found, expected, strict=True)):
        return ""
    again = _outputs(whole, inputs, training)
    if any(not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(expected, again, strict=True)):
        return None  # it draws random numbers
    return "the network without them computes something else than with zeros in their place" if same_shapes else OUTPUTS


def remove_and_index(model: nn.Module, inputs: Inputs, removals: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """Remove channels of layers from a model, and return the elements that remain.

    Args:
        model: A copy of the network in double precision.
        inputs: Its inputs.
        removals: Channels to remove, by layer.

    Returns:
        For every parameter that became smaller, by name: the flat indices of the remaining elements, in the new shape.

    """
    graph = ChannelGraph(model, inputs)
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():  # each element is its own index
        for parameter in model.parameters():
            parameter.copy_(torch.arange(parameter.numel(), device=parameter.device).view(parameter.shape))
    for name, channels in removals.items():
        graph.remove(name, channels)
    kept = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            indices = parameter.detach().long()
            parameter.copy_(values[name].flatten()[indices])
            if parameter.shape != values[name].shape:
                kept[name] = indices
    return kept


def _set_zeros(whole: nn.Module, smaller: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Set the elements that the smaller network does not have to zero, and leave them out of means over channels."""
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            if name in kept:
                mask = torch.zeros(parameter.numel(), dtype=parameter.dtype, device=parameter.device)
                mask[kept[name].flatten()] = 1
                parameter.mul_(mask.view(parameter.shape))
    for name, module in list(whole.named_modules()):
        if type(module) is nn.LayerNorm and f"{name}.weight" in kept:
            parent, _, last = name.rpartition(".")
            setattr(whole.get_submodule(parent), last, _LayerNormOfSome(module, kept[f"{name}.weight"].flatten()))


class _LayerNormOfSome(nn.Module):
    """A layer normalization of some of its elements; the others become zero."""

    def __init__(self, whole: nn.LayerNorm, kept: Tensor) -> None:
        super().__init__()
        self.whole, self.kept = whole, kept

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(x.dim() - len(self.whole.normalized_shape))
        some = functional.layer_norm(flat[..., self.kept], (len(self.kept),), eps=self.whole.eps)
        result = torch.zeros_like(flat)
        result[..., self.kept] = some
        result = result.view(x.shape) * self.whole.weight
        return result if self.whole.bias is None else result + self.whole.bias


def _outputs(model: nn.Module, inputs: Inputs, training: bool) -> list[Tensor]:
    """Return the outputs of a call; dropout, which would draw other numbers for fewer channels, is left out."""
    model.train(training)
    for module in model.modules():
        if isinstance(module, _DROPOUT):
            module.eval()
    device_type = next(model.parameters()).device.type
    with torch.no_grad(), torch.autocast(device_type, enabled=False), kept_random_states():
        torch.manual_seed(0)
        return [tensor.clone() for tensor in compared_tensors(call(model, inputs))]


def _random(inputs: Inputs) -> Inputs:
    """Return inputs with random numbers instead of the floating-point ones."""
    generator = torch.Generator().manual_seed(1)

    def draw(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype).to(tensor.device)

    drawn: Any = pytree.tree_map_only(Tensor, draw, inputs)
    assert isinstance(drawn, (tuple, dict))
    return drawn


def _concatenate(inputs: Inputs, others: Inputs) -> Inputs:
    """Return the samples of both, of tensors with as many samples as the first one, and else the first of both."""
    tensors = tensors_of(inputs)
    count = next((len(tensor) for tensor in tensors if tensor.dim()), None)

    def concatenate(one: Any, other: Any) -> Any:
        if isinstance(one, Tensor) and one.dim() and len(one) == count:
            return torch.cat([one, other])
        return one

    joined: Any = pytree.tree_map(concatenate, inputs, others)
    assert isinstance(joined, (tuple, dict))
    return joined


def _is_close(found: Tensor, expected: Tensor) -> bool:
    scale = float(expected.abs().max()) if expected.numel() else 1.0
    return torch.allclose(found, expected, rtol=0.0, atol=_TOLERANCE * max(scale, 1e-12), equal_nan=True)
