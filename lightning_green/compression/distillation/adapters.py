"""Linear layers that map a student's features to the teacher's number of channels, trained with the student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Adapters:
    """One linear map of channels (a 1x1 convolution) for each compared layer, with one optimizer for all of them.

    Adapters are not part of the student, so they are not in its state dict. A layer with the teacher's number of
    channels has no adapter.

    Args:
        learning_rate: Learning rate of Adam.
        seed: Seed of the initial weights, which are equal on all ranks.

    """

    def __init__(self, learning_rate: float = 1e-3, seed: int = 0) -> None:
        self.layers: dict[str, nn.Parameter] = {}
        self._rate, self._generator = learning_rate, torch.Generator().manual_seed(seed)
        self._optimizer: torch.optim.Adam | None = None
        self._restored: Mapping[str, Any] = {}

    def adapt(self, name: str, features: Tensor, channels: int) -> Tensor:
        """Return features with the teacher's number of channels (dimension 1).

        Args:
            name: Name of the student's layer.
            features: Features of the student, ``(samples, channels, ...)``.
            channels: Number of channels of the teacher.

        """
        own = features.shape[1]
        if own == channels:
            return features
        weight = self.layers.get(name)
        if weight is None or weight.shape != (channels, own):  # channels of the student may have been removed
            weight = self._new(name, channels, own, features.device)
        flat = features.flatten(2) if features.dim() > 2 else features[..., None]
        adapted = torch.einsum("oi,bip->bop", weight.to(features.dtype), flat)
        return adapted.view(features.shape[0], channels, *features.shape[2:])

    def step(self) -> None:
        """Update the weights with their gradients, averaged over the processes, and clear the gradients."""
        weights = [w for w in self.layers.values() if w.grad is not None]
        if self._optimizer is None or not weights:
            return
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for weight in weights:
                assert weight.grad is not None
                torch.distributed.all_reduce(weight.grad)
                weight.grad /= torch.distributed.get_world_size()
        if all(bool(torch.isfinite(w.grad).all()) for w in weights if w.grad is not None):
            self._optimizer.step()
        self._optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the weights and the optimizer's state by layer."""
        if not self.layers:
            return dict(self._restored)
        assert self._optimizer is not None
        weights = {name: weight.detach().clone() for name, weight in self.layers.items()}
        moments = {name: dict(self._optimizer.state.get(weight, {})) for name, weight in self.layers.items()}
        return {"weights": weights, "moments": moments, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state. Each adapter is created when ``adapt`` first receives its layer."""
        self.layers, self._optimizer, self._restored = {}, None, state
        if state:
            self._generator.set_state(state["generator"].cpu())

    def _new(self, name: str, channels: int, own: int, device: torch.device) -> nn.Parameter:
        stored = self._restored.get("weights", {}).get(name) if self._restored else None
        if stored is not None and stored.shape == (channels, own):
            weight = nn.Parameter(stored.clone().to(device))
        else:
            stored = None
            weight = nn.Parameter(torch.randn(channels, own, generator=self._generator).to(device) / own**0.5)
        self.layers[name] = weight
        moments = self._optimizer.state if self._optimizer is not None else {}
        self._optimizer = torch.optim.Adam(self.layers.values(), self._rate)
        for other in self.layers.values():
            if other in moments:
                self._optimizer.state[other] = moments[other]
        if stored is not None and self._restored["moments"][name]:
            self._optimizer.state[weight] = {
                key: value.clone().to(device) if key != "step" else value.clone()
                for key, value in self._restored["moments"][name].items()
            }
        return weight
