"""Removal of channels on a schedule, with a state that a checkpoint restores exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lightning_green.compression.inputs import Inputs
from lightning_green.compression.pruning.channel_graph import channel_count, torch_pruning
from lightning_green.compression.pruning.channels import find_removable, remove_channels
from lightning_green.compression.pruning.device_memory import copied, within_memory
from lightning_green.compression.pruning.optimizer_states import slice_optimizer
from lightning_green.compression.schedules import sparsity_at


class ChannelPruner:
    """Remove channels from a network during training, without a Trainer.

    Args:
        target: Fraction of the original parameters to remove by the end, or fractions of channels by pattern of layers.
        criterion: ``"magnitude"`` or ``"random"``.
        schedule: Shape of the schedule; see ``sparsity_at``.
        exclude: Patterns of layers that keep their channels.
        round_to: Keep multiples of this number of channels.
        seed: Seed of the random criterion.

    Raises:
        ModuleNotFoundError: Without the extra ``compression``.

    Examples:
        ```python
        pruner = ChannelPruner(0.5, round_to=8)
        pruner.update(network, inputs, progress=1.0, optimizers=[optimizer])
        ```

    """

    def __init__(
        self,
        target: float | Mapping[str, float],
        criterion: str = "magnitude",
        schedule: str = "cubic",
        exclude: Sequence[str] = (),
        round_to: int = 1,
        seed: int = 0,
    ) -> None:
        torch_pruning()  # raises now rather than after hours of training
        self.target, self.criterion, self.schedule = target, criterion, schedule
        self.exclude, self.round_to = tuple(exclude), round_to
        self._widths: dict[str, int] = {}
        self._parameters = 0
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def layers(self) -> int:
        """Number of layers that may lose channels."""
        return len(self._widths)

    def update(self, network: nn.Module, inputs: Inputs, progress: float, optimizers: Iterable[Optimizer] = ()) -> None:
        """Remove the channels that are due, and slice the optimizers' state accordingly.

        Args:
            network: The network, which is changed in place.
            inputs: Inputs of the network: positional arguments, or a dictionary of arguments by keyword.
            progress: Fraction of the way from the schedule's begin to its end.
            optimizers: Optimizers of the network's parameters.

        Raises:
            ValueError: If the target cannot be reached, or a layer would lose all its channels.

        """
        self.prepare(network, inputs)
        before = dict(network.named_parameters())
        indices = self._remove(network, inputs, progress, self._generator)
        after = dict(network.named_parameters())
        for optimizer in optimizers:
            slice_optimizer(optimizer, before, after, indices)

    def prepare(self, network: nn.Module, inputs: Inputs) -> dict[str, str]:
        """Find the removable channels, and reach the target on a copy; the network does not change.

        Args:
            network: The intact network.
            inputs: Inputs of the network: positional arguments, or a dictionary of arguments by keyword.

        Returns:
            The layers that are left as they are, with the reason of each; none if it was called before.

        Raises:
            ValueError: If the target cannot be reached, or a layer would lose all its channels.

        """
        if self._widths:
            return {}
        widths, left = within_memory(lambda net, given: find_removable(net, given, self.exclude), network, inputs)
        self._widths, self._parameters = widths, _count(network)

        def try_removal(model: nn.Module, given: Inputs) -> None:
            self._remove(copied(model), given, 1.0, torch.Generator().manual_seed(0))

        try:
            within_memory(try_removal, network, inputs)
        except BaseException:
            self._widths, self._parameters = {}, 0
            raise
        return left

    def _remove(
        self, network: nn.Module, inputs: Inputs, progress: float, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        target: float | dict[str, float]
        if isinstance(self.target, Mapping):
            target = {pattern: sparsity_at(progress, t, self.schedule) for pattern, t in self.target.items()}
        else:
            target = sparsity_at(progress, self.target, self.schedule)
        return remove_channels(
            network,
            inputs,
            target,
            widths=self._widths,
            parameters=self._parameters,
            criterion=self.criterion,
            round_to=self.round_to,
            generator=generator,
        )

    def sparsity(self, network: nn.Module) -> dict[str, float]:
        """Return the removed fraction of the original parameters, under ``""``, and of each layer's channels."""
        removed = {name: 1 - channel_count(network.get_submodule(name)) / was for name, was in self._widths.items()}
        return {"": 1 - _count(network) / self._parameters if self._parameters else 0.0} | removed

    def state_dict(self) -> dict[str, Any]:
        """Return the original sizes and the generator's state."""
        return {
            "widths": dict(self._widths),
            "parameters": self._parameters,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of another pruner of the same model."""
        self._widths = dict(state["widths"])
        self._parameters = state["parameters"]
        self._generator.set_state(state["generator"].cpu())


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
