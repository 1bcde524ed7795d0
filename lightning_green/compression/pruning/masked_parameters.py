"""Masks of a model's parameters, stored outside the model and applied to weights and momentum."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class MaskedParameters:
    """Parameters and their masks. The model's parameters, names and checkpoints do not change.

    ```python
    masked = MaskedParameters(prunable_parameters(model))
    masked.masks = global_masks({n: magnitude_scores(p) for n, p in masked.parameters.items()}, 0.8)
    masked.apply()
    ```

    Args:
        parameters: The parameters by name; the objects that the optimizer updates.

    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = dict(parameters)
        self._masks: dict[str, Tensor] = {}
        self._factors: dict[int, Tensor] = {}

    @property
    def masks(self) -> dict[str, Tensor]:
        """Boolean masks by parameter name, True where a weight is kept; parameters without one are dense."""
        return self._masks

    @masks.setter
    def masks(self, masks: Mapping[str, Tensor]) -> None:
        for name, mask in masks.items():
            parameter = self.parameters.get(name)
            if parameter is None:
                raise ValueError(f"There is a mask for {name!r}, but the model has no such parameter to prune.")
            if parameter.shape != mask.shape:
                shapes = f"{tuple(parameter.shape)}, got {tuple(mask.shape)}"
                raise ValueError(f"The mask of {name!r} should have the shape {shapes}.")
        self._masks = {name: mask.to(self.parameters[name].device, torch.bool) for name, mask in masks.items()}
        # Multiplication by numbers of the weight's data type is several times faster than by booleans.
        self._factors = {
            id(self.parameters[name]): m.to(self.parameters[name].dtype) for name, m in self._masks.items()
        }

    def belong_to(self, module: nn.Module) -> bool:
        """Return whether every parameter is one of the module's."""
        owned = {id(p) for p in module.parameters()}
        return all(id(p) in owned for p in self.parameters.values())

    def move_masks(self) -> None:
        """Move the masks to the current devices of their parameters."""
        self.masks = self._masks

    @torch.no_grad()
    def apply(self) -> None:
        """Set the pruned weights to zero."""
        pairs = [(p, self._factors[id(p)]) for p in self.parameters.values() if id(p) in self._factors]
        if pairs:
            torch._foreach_mul_([p for p, _ in pairs], [f for _, f in pairs])

    @torch.no_grad()
    def apply_to_state(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the momentum of pruned weights to zero, so that it does not move them when they are grown again.

        Applies to all state tensors of the parameter's shape except second moments (names that contain ``sq``): a
        second moment of zero would cause a very large step for a weight that is grown again.
        """
        states, factors = [], []
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                factor = self._factors.get(id(parameter))
                if factor is None:
                    continue
                for key, state in optimizer.state.get(parameter, {}).items():
                    if torch.is_tensor(state) and state.shape == factor.shape and "sq" not in key:
                        states.append(state)
                        factors.append(factor)
        if states:
            torch._foreach_mul_(states, factors)
