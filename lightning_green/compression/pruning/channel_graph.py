"""Groups of channels that can only be removed together.

Dependencies between layers come from Torch-Pruning's dependency graph (Fang et al., "DepGraph", arXiv 2301.12900).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_green.compression.inputs import Inputs, call, tensors_of
from lightning_green.compression.network import kept_attributes, restored_modes
from lightning_green.compression.outputs import output_tensors

# Layers whose channels are coupled in ways that the graph does not model.
_UNSUPPORTED = {
    nn.GroupNorm: "is a GroupNorm",
    nn.MultiheadAttention: "is a MultiheadAttention",
    nn.RNNBase: "is recurrent",
    nn.Parameter: "is a parameter of no layer",
}

_MOST_TIMES, _MOST_IMPOSSIBLE = 4, 20  # indices per channel of a layer, and how often, that show a circle


def torch_pruning() -> Any:
    """Return the module ``torch_pruning``, or raise a ``ModuleNotFoundError`` that names the extra."""
    try:
        import torch_pruning
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Removing channels needs Torch-Pruning: pip install 'lightning-green[compression]'."
        ) from error
    return torch_pruning


class ChannelGraph:
    """Groups of channels of a model that can only be removed together.

    Args:
        model: The network, which does not change until ``remove``.
        inputs: Inputs of the network: positional arguments, or a dictionary of arguments by keyword.

    Raises:
        ValueError: If the graph of the channels cannot be built.

    """

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        self.tp = torch_pruning()
        # In evaluation mode, tracing changes no running statistics.
        device = tensors_of(inputs)[0].device.type
        no_autocast = nullcontext() if device == "meta" else torch.autocast(device, enabled=False)
        with restored_modes(model), kept_attributes(model), kept_random_states(), torch.enable_grad(), no_autocast:
            model.eval()
            with _explained(model), _workarounds(model):
                self.graph = self.tp.DependencyGraph().build_dependency(
                    model, inputs, forward_fn=call, output_transform=_traced_outputs, verbose=False
                )
        self.names = {module: name for name, module in model.named_modules()}
        owners = Counter(id(p) for module in self.names for p in module._parameters.values() if p is not None)
        self._tied = {m for m in self.names if any(owners[id(p)] > 1 for p in m._parameters.values() if p is not None)}

    def groups(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the groups by the name of their first layer, and the layers without one with the reason of each."""
        groups: dict[str, Any] = {}
        left: dict[str, str] = {}
        seen: set[Any] = set()
        for layer in [one for one in self.graph.module2node if isinstance(one, (nn.Linear, nn.modules.conv._ConvNd))]:
            if layer in seen:
                continue
            with _workarounds(self.graph.model, widths_change=False) as members:
                try:
                    prune = self.graph.get_pruner_of_module(layer).prune_out_channels
                    group = self.graph.get_pruning_group(layer, prune, list(range(channel_count(layer))))
                except torch.OutOfMemoryError:
                    raise
                except RecursionError:
                    left[self._name(layer)] = "its channels depend on themselves in another shape"
                except Exception as error:  # noqa: BLE001 - of Torch-Pruning, about layers of any kind
                    left[self._name(layer)] = f"Torch-Pruning cannot follow its channels ({error!r})"
                else:
                    groups[self._name(layer)] = group
            seen.update(dep.target.module for dep in members if self.graph.is_out_channel_pruning_fn(dep.handler))
        return groups, left

    def members(self, group: Any) -> list[str]:
        """Return the names of the layers of a group."""
        modules = dict.fromkeys(dep.target.module for dep, _ in group)
        return [self.names[module] for module in modules if module in self.names]

    def unsupported(self, group: Any) -> str:
        """Return why a group keeps its channels, without trying to remove one; an empty string if it may lose some."""
        for dep, _ in group:
            module = dep.target.module
            name = f"`{self._name(module)}`"
            for kind, problem in _UNSUPPORTED.items():
                if isinstance(module, kind):
                    return f"{name} {problem}"
            if _is_grouped(module):
                return f"{name} is a grouped convolution"
            if module in self._tied:  # it would be sliced once for each layer, and no longer be shared
                return f"{name} shares its weight"
            if _is_computed(module):
                return f"the weight of {name} is computed from others"
        return ""

    def _name(self, module: Any) -> str:
        """Return the name of a layer, or of a parameter of no layer."""
        parameters = ((name, one) for name, one in self.graph.model.named_parameters() if one is module)
        return self.names.get(module) or next(parameters, ("", None))[0]

    def remove(self, name: str, channels: list[int]) -> None:
        """Remove channels of a layer and everything that depends on them."""
        layer = self.graph.model.get_submodule(name)
        handler = self.graph.get_pruner_of_module(layer).prune_out_channels
        with _workarounds(self.graph.model):
            self.graph.get_pruning_group(layer, handler, channels).prune()


@contextmanager
def _explained(model: nn.Module) -> Iterator[None]:
    """Raise a ``ValueError`` with what helps instead of the errors of Torch-Pruning."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # about layers of any kind
        raise ValueError(
            f"Torch-Pruning cannot follow the channels of {type(model).__name__} ({error!r}). Pass the part of it that "
            "may lose channels as `model`, or use another `granularity`."
        ) from error


@contextmanager
def _workarounds(model: nn.Module, *, widths_change: bool = True) -> Iterator[list[Any]]:
    """Let Torch-Pruning end on networks that reshape their channels.

    A network that multiplies channels with themselves (``x @ x.T``), or that rolls windows, multiplies the indices in
    each round, forever: a ``RecursionError`` is raised. An operation whose widths it cannot relate, such as a channel
    shuffle, has no mapping of indices. What is wrong then is found by the comparison of the outputs. As long as no
    width changes, the mappings of the whole network need not be made again for each group.

    Yields:
        The dependencies that Torch-Pruning has found since, also if it has failed.

    """
    from torch_pruning.dependency import index_mapping
    from torch_pruning.dependency.group import Group

    add_dep = Group.add_dep
    widest = max((max(p.shape) for p in model.parameters() if p.dim()), default=0)
    found: list[Any] = []
    impossible = 0

    def add_finite(group: Any, dep: Any, idxs: Any) -> Any:
        nonlocal impossible
        found.append(dep)
        module = dep.target.module
        is_layer = isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
        if len(idxs) > _MOST_TIMES * (max(module.weight.shape) if is_layer else widest):
            impossible += 1 if is_layer else _MOST_IMPOSSIBLE + 1
        if impossible > _MOST_IMPOSSIBLE:
            raise RecursionError("channels depend on themselves in another shape")
        return add_dep(group, dep, idxs)

    def if_possible(update: Callable[..., None]) -> Callable[..., None]:
        def update_if_possible(*arguments: Any) -> None:
            with suppress(ZeroDivisionError, TypeError):
                update(*arguments)

        return update_if_possible

    replaced: list[tuple[Any, str, Callable[..., Any]]] = [(Group, "add_dep", add_finite)]
    if widths_change:
        replaced += [
            (index_mapping, name, if_possible(function))
            for name, function in vars(index_mapping).items()
            if name.startswith("update_") and name != "update_index_mapping"
        ]
    else:
        replaced.append((index_mapping, "update_index_mapping", lambda graph: None))
    with ExitStack() as stack:
        for owner, name, replacement in replaced:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, replacement)
        yield found


@contextmanager
def kept_random_states() -> Iterator[None]:
    """Restore the global random states at the end of the context."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _is_grouped(module: Any) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd) and 1 < module.groups < max(
        module.out_channels, module.in_channels
    )


def _is_computed(module: Any) -> bool:
    """Return whether a layer's weight is no parameter, as with weight and spectral normalization of both kinds."""
    return isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and "weight" not in module._parameters


def _traced_outputs(output: Any) -> list[Tensor]:
    """Return the outputs whose channels depend on those of layers. Scalars, such as a loss, have no channels."""
    return [tensor for tensor in output_tensors(output) if tensor.dim() > 1 and tensor.grad_fn is not None]


def channel_count(layer: nn.Module) -> int:
    """Return the number of output channels of a linear or convolutional layer."""
    width = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    assert isinstance(width, int)
    return width
