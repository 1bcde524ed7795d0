"""Masks on a schedule, with a state that a checkpoint restores exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_green.compression.patterns import matching
from lightning_green.compression.pruning.criteria import (
    accumulate_movement_,
    gradient_scores,
    magnitude_scores,
    random_scores,
)
from lightning_green.compression.pruning.granularity import Granularity, masks_for
from lightning_green.compression.pruning.masked_parameters import MaskedParameters
from lightning_green.compression.pruning.parameters import measured_sparsity, plain_name, prunable_parameters
from lightning_green.compression.pruning.rigl import drop_fraction, erdos_renyi_sparsities, rigl_mask
from lightning_green.compression.schedules import sparsity_at


class MaskPruner:
    """Masks of a model during training, without a Trainer.

    Args:
        model: The model. Only the values of its weights change.
        target: Final sparsity, or sparsities by pattern of the only parameters to prune.
        granularity: Any granularity except channels.
        criterion: One of ``CRITERIA``, or ``"rigl"``.
        schedule: Shape of the schedule; see ``sparsity_at``.
        scope: ``"global"`` or ``"layer"``.
        include: Patterns of parameters to prune in addition to linear and convolutional weights.
        exclude: Patterns of parameters not to prune.
        seed: Seed of the random criterion and of RigL's first mask.

    Attributes:
        named: The parameters that the arguments select, by name: also those that the granularity does not fit.

    Raises:
        ValueError: If a pattern matches nothing, or there is no parameter to prune.

    Examples:
        ```python
        pruner = MaskPruner(model, 0.8, Granularity.parse("unstructured"))
        pruner.update(progress=0.5)    # before optimizer.step(), when an update is due
        pruner.apply(optimizer)        # after every optimizer.step()
        ```

    """

    def __init__(
        self,
        model: nn.Module,
        target: float | Mapping[str, float],
        granularity: Granularity,
        criterion: str = "magnitude",
        schedule: str = "cubic",
        scope: str = "global",
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        self.granularity, self.criterion, self.schedule = granularity, criterion, schedule
        if isinstance(target, Mapping):
            parameters, targets = _by_pattern(model, target, include, exclude)
        else:
            parameters, targets = prunable_parameters(model, include, exclude, frozen=True), {}
        self.named = parameters
        parameters = {name: p for name, p in parameters.items() if granularity.fits(p.shape)}
        if not parameters:
            raise ValueError(
                f"`granularity` {granularity.first}:{granularity.second} fits no weight: no weight has a multiple of "
                f"{granularity.second} input channels."
            )
        self.masked = MaskedParameters(parameters)
        self.targets: float | dict[str, float]
        if isinstance(target, Mapping):
            self.targets = {name: targets[name] for name in parameters}
        else:
            self.targets = target if scope == "global" else dict.fromkeys(parameters, target)
        self._movement: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(seed)

    def update(self, progress: float) -> list[str]:
        """Compute new masks. Criteria that use gradients need them to be present.

        Args:
            progress: Fraction of the way from the schedule's begin to its end.

        Returns:
            Names of the parameters that have no weights left.

        """
        if self.criterion == "rigl":
            masks = self._rigl_masks(progress)
        elif isinstance(self.targets, dict):
            wanted = {name: sparsity_at(progress, self.targets[name], self.schedule) for name in self.trained()}
            masks = masks_for(self._scores(), wanted, self.granularity)
        else:
            wanted_overall = sparsity_at(progress, self.targets, self.schedule)
            masks = masks_for(self._scores(), wanted_overall, self.granularity)
        self.masked.masks = masks
        return [name for name, mask in masks.items() if not bool(mask.any())]

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters to prune that are trained at this time, or have a mask.

        A frozen weight stays as it is. One that is trained later, as by ``BackboneFinetuning``, gets the sparsity of
        that time.
        """
        masks = self.masked.masks
        return {name: p for name, p in self.masked.parameters.items() if p.requires_grad or name in masks}

    def left(self) -> dict[str, str]:
        """Return the parameters that stay dense at this time, with the reason of each."""
        misfits = {name: p for name, p in self.named.items() if not self.granularity.fits(p.shape)}
        reasons = dict.fromkeys(misfits, f"no multiple of {self.granularity.second} input channels")
        trained = self.trained()
        return reasons | {name: "frozen" for name in self.masked.parameters if name not in trained}

    def leave_out(self, names: Iterable[str]) -> None:
        """Leave parameters out that are no weights of the trained network, such as a moving average of them."""
        own = set(names) - self.masked.masks.keys()
        self.named = {name: p for name, p in self.named.items() if name not in own}
        self.masked.parameters = {name: p for name, p in self.masked.parameters.items() if name not in own}

    def apply(self, optimizer: Optimizer | None = None) -> None:
        """Set pruned weights to zero, and their momentum in ``optimizer``."""
        self.masked.apply()
        if optimizer is not None:
            self.masked.apply_to_state(optimizer)

    def can_update(self) -> bool:
        """Return whether the gradients that the criterion uses are finite; after an overflow in fp16 they are not."""
        if self.criterion not in ("gradient", "rigl"):
            return True
        return _finite([p.grad for p in self.masked.parameters.values() if p.grad is not None])

    def accumulate_movement(self, optimizer: Optimizer) -> None:
        """Add the movement of one step to the scores of the parameters of ``optimizer``.

        A step with non-finite gradients (an overflow in fp16, which the loss scaler skips) adds nothing.
        """
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        scores, weights, gradients = [], [], []
        for name, parameter in self.masked.parameters.items():
            if id(parameter) in own and parameter.grad is not None:
                score = self._movement.get(name)
                if score is None or score.device != parameter.device:
                    score = torch.zeros_like(parameter, dtype=torch.float32) if score is None else score
                    self._movement[name] = score = score.to(parameter.device)
                scores.append(score)
                weights.append(parameter.detach().float())
                gradients.append(parameter.grad.detach().float())
        if scores and _finite(gradients):
            accumulate_movement_(scores, weights, gradients)

    def sparsity(self) -> dict[str, float]:
        """Return the fraction of zeros of each named parameter, dense ones included, and of all under ``""``."""
        return measured_sparsity(self.named)

    def state_dict(self) -> dict[str, Any]:
        """Return masks and scores by parameter name, and the generator's state."""
        return {
            "masks": dict(self.masked.masks),
            "movement": dict(self._movement),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of another pruner of the same model."""
        self.masked.masks = state["masks"]
        self._movement = {name: score.clone() for name, score in state["movement"].items()}
        self._generator.set_state(state["generator"].cpu())

    def _scores(self) -> dict[str, Tensor]:
        scores = {}
        for name, parameter in self.trained().items():
            if self.criterion == "magnitude":
                score = magnitude_scores(parameter)
            elif self.criterion == "random":
                score = random_scores(parameter, self._generator)
            elif self.criterion == "movement":
                score = self._movement.get(name, torch.zeros_like(parameter)).to(parameter.device)
            else:
                score = gradient_scores(parameter, _gradient(parameter))
            if name in self.masked.masks:  # pruned weights stay pruned
                score = score.masked_fill(~self.masked.masks[name], -torch.inf)
            scores[name] = score
        return scores

    def _rigl_masks(self, progress: float) -> dict[str, Tensor]:
        masks, trained = self.masked.masks, self.trained()
        new = {name: p for name, p in trained.items() if name not in masks}
        wanted: float | dict[str, float] = self.targets
        if new and not isinstance(wanted, dict):
            wanted = erdos_renyi_sparsities({name: p.shape for name, p in new.items()}, wanted)
        if new and isinstance(wanted, dict):
            scores = {name: random_scores(p, self._generator) for name, p in new.items()}
            new_masks = masks_for(scores, {name: wanted[name] for name in new}, self.granularity)
        else:
            new_masks = {}
        fraction = drop_fraction(progress)
        moved = {n: rigl_mask(p, masks[n], _gradient(p), fraction) for n, p in trained.items() if n in masks}
        return {**new_masks, **moved}


def _by_pattern(
    model: nn.Module, target: Mapping[str, float], include: Sequence[str], exclude: Sequence[str]
) -> tuple[dict[str, nn.Parameter], dict[str, float]]:
    """Return the parameters that match a pattern, and their targets. A later pattern takes precedence."""
    known = [plain_name(name) for name, _ in model.named_parameters()]
    named = [pattern for pattern in target if pattern in known]
    parameters = prunable_parameters(model, [*include, *named], exclude, frozen=True)
    targets: dict[str, float] = {}
    for pattern, value in target.items():
        hits = matching("target", [pattern], known) & parameters.keys()
        if not hits:
            raise ValueError(
                f"`target` should name parameters to prune, but {pattern!r} matches no linear or convolutional weight. "
                "Other parameters need their full name."
            )
        targets.update(dict.fromkeys(hits, value))
    return {name: p for name, p in parameters.items() if name in targets}, targets


def _finite(tensors: list[Tensor]) -> bool:
    """Return whether every number is finite, with a single synchronization with the device."""
    return not tensors or bool(torch.isfinite(torch.stack(torch._foreach_norm(tensors, float("inf")))).all())


def _gradient(parameter: nn.Parameter) -> Tensor:
    return parameter.grad.detach() if parameter.grad is not None else torch.zeros_like(parameter)
