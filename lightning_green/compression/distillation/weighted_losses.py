"""The weighted losses between a student and its teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_green.compression.distillation import losses
from lightning_green.compression.distillation.adapters import Adapters
from lightning_green.compression.outputs import only_tensor
from lightning_green.compression.schedules import Ramp
from lightning_green.utilities.validation import check_choice

LOSSES = (*losses.OUTPUT_LOSSES, *losses.FEATURE_LOSSES)
_TEMPERATURES = {"standardized": 2.0, "soft_targets": 4.0, "decoupled": 4.0}


class WeightedLosses:
    """Losses by name with their weights, which may change over the training.

    Args:
        weights: Weight of each loss by name, a number or a schedule.
        layers: Paths of the student's layers to paths of the teacher's, for losses of features.
        temperature: Temperature of the losses of logits, a number or a schedule; None for each loss's default.
        target: Returns the classes of a batch, for ``"decoupled"``.
        channel_dim: Dimension of classes and channels in tensors with three or more dimensions: 1, or -1. None for 1,
            except for tensors with three dimensions, which need a value.

    Raises:
        ValueError: If a name is unknown, a number is out of range, or ``layers`` and the losses do not match.

    """

    def __init__(
        self,
        weights: Mapping[str, float | Ramp],
        layers: Mapping[str, str],
        temperature: float | Ramp | None,
        target: Callable[[Any], Tensor],
        channel_dim: int | None = None,
    ) -> None:
        if channel_dim not in (None, 1, -1) or isinstance(channel_dim, bool):
            raise ValueError(f"`channel_dim` should be 1, -1 or None, got {channel_dim!r}.")
        if not weights:
            raise ValueError("`losses` should name at least one loss, got {}.")
        for name, weight in weights.items():
            check_choice("losses", name, LOSSES)
            if not isinstance(weight, Ramp) and not weight >= 0:
                raise ValueError(f"`losses[{name!r}]` should be a weight of at least 0 or a Ramp, got {weight!r}.")
        if temperature is not None and not isinstance(temperature, Ramp) and not temperature > 0:
            raise ValueError(f"`temperature` should be above 0, got {temperature!r}.")
        of_features = [name for name in weights if name in losses.FEATURE_LOSSES]
        if of_features and not layers:
            raise ValueError(f"`layers` should name the layers that {', '.join(of_features)} compares, got none.")
        if layers and not of_features:
            raise ValueError("`layers` are for the losses 'hint' and 'attention', but `losses` has neither.")
        self.weights, self.layers, self.temperature = dict(weights), dict(layers), temperature
        self.adapters = Adapters()
        self._target, self._channel_dim = target, channel_dim

    def is_scheduled(self) -> bool:
        """Return whether a weight or the temperature changes over the training."""
        return any(isinstance(value, Ramp) for value in (*self.weights.values(), self.temperature))

    def compare_classes(self) -> bool:
        """Return whether a loss needs outputs of equal shape."""
        return bool(set(self.weights) - {"relational", *losses.FEATURE_LOSSES})

    def values(
        self,
        outputs: tuple[Tensor, Tensor],
        features: tuple[Mapping[str, Any], Mapping[str, Any]],
        batch: Any,
        progress: float,
    ) -> Iterator[tuple[str, float, Tensor]]:
        """Yield name, weight and value of each loss.

        Args:
            outputs: Logits of the student and of the teacher.
            features: Features of the student and of the teacher, by the student's path.
            batch: The batch, for ``target``.
            progress: Fraction of the training.

        Raises:
            ValueError: If the shapes of outputs or features need another argument.

        """
        if self.compare_classes():
            outputs = self._channels_first(outputs[0], "outputs"), self._channels_first(outputs[1], "outputs")
        for name, weight in self.weights.items():
            if name in losses.FEATURE_LOSSES:
                value = self._feature_loss(name, *features)
            else:
                value = self._output_loss(name, *outputs, batch, progress)
            yield name, at(weight, progress), value

    def _feature_loss(self, name: str, student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Tensor:
        parts = []
        for path, other in self.layers.items():
            ours, theirs = self._features(student, path, path), self._features(teacher, path, other).clone()
            if len(ours) != len(theirs) or (ours.dim() == 3 and ours.shape[2] != theirs.shape[2]):
                raise ValueError(
                    f"`layers` should name layers with the same samples and positions, but {path!r} has features of "
                    f"the shape {tuple(student[path].shape)} and {other!r} of {tuple(teacher[path].shape)}."
                )
            if name == "hint":
                parts.append(losses.hint(self.adapters.adapt(path, ours, theirs.shape[1]), theirs))
            else:
                parts.append(losses.attention(ours, theirs))
        return torch.stack(parts).mean()

    def _features(self, found: Mapping[str, Any], path: str, layer: str) -> Tensor:
        if path not in found:
            raise ValueError(f"`layers` should name layers that are called in training, but {layer!r} was not.")
        features = only_tensor(
            found[path], f"`layers` should name layers that return one tensor, such as a part of {layer!r}"
        )
        return self._channels_first(features, f"features of {layer!r}")

    def _channels_first(self, tensor: Tensor, what: str) -> Tensor:
        """Return a tensor with classes or channels along dimension 1."""
        if tensor.dim() == 3 and self._channel_dim is None:
            raise ValueError(
                f"`channel_dim` should be 1 or -1 for {what} with three dimensions, got None: set 1 if "
                f"{tuple(tensor.shape)} is (samples, channels, positions), and -1 if it is (samples, positions, "
                "channels), as in language models."
            )
        return tensor.movedim(-1, 1) if tensor.dim() > 2 and self._channel_dim == -1 else tensor

    def _output_loss(self, name: str, student: Tensor, teacher: Tensor, batch: Any, progress: float) -> Tensor:
        if name == "relational":
            return losses.relational(student, teacher)
        temperature = _TEMPERATURES[name] if self.temperature is None else at(self.temperature, progress)
        if name == "decoupled":
            return losses.decoupled(student, teacher, self._target(batch), temperature)
        function = losses.standardized if name == "standardized" else losses.soft_targets
        return function(student, teacher, temperature)


def at(value: float | Ramp, progress: float) -> float:
    """Return a number, or the value of a schedule at a fraction of the training."""
    return value(progress) if isinstance(value, Ramp) else value
