"""Comparison of two models' outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_green.compression.outputs import compared_tensors


@dataclass(frozen=True)
class Agreement:
    """Agreement of two models' outputs.

    Args:
        samples: Number of compared samples.
        same_class: Fraction of samples with the same largest output along dimension 1; 1.0 without classes.
        difference: Mean absolute difference as a fraction of the outputs' standard deviation.

    """

    samples: int
    same_class: float
    difference: float

    def require(self, difference: float, what: str, than: str) -> None:
        """Raise a ``ValueError`` if the difference is above a limit, or not a number.

        Args:
            difference: Largest accepted difference.
            what: Name of the model, for the message.
            than: Name of the reference, for the message.

        """
        if not self.difference <= difference:
            raise ValueError(
                f"The outputs of {what} should agree with those of {than}, but over {self.samples} samples they differ "
                f"by {self.difference:.3f} of their standard deviation (at most {difference}), and the class is equal "
                f"for {self.same_class:.1%}. Calibrate or train in fake quantization for longer, or keep sensitive "
                "layers in float with `keep_float`."
            )


def agreement(outputs: Sequence[Tensor], reference: Sequence[Tensor]) -> Agreement:
    """Return the agreement of a model's outputs with those of a reference.

    Args:
        outputs: One tensor per batch, with samples along dimension 0 and classes, if any, along dimension 1. The sizes
            of other dimensions may differ between batches; classes are not compared then.
        reference: Outputs of the reference, in the same shapes.

    Raises:
        ValueError: If the shapes differ from those of the reference.

    Examples:
        >>> agreement([torch.tensor([[1.0, 0.0], [0.0, 1.0]])], [torch.tensor([[1.0, 0.0], [1.0, 0.0]])]).same_class
        0.5

    """
    for output, expected in zip(outputs, reference, strict=True):
        if output.shape != expected.shape:
            raise ValueError(
                f"The outputs should have the shape of the reference's, {tuple(expected.shape)}, got "
                f"{tuple(output.shape)}."
            )
    samples = sum(len(expected) if expected.dim() else 1 for expected in reference)
    same_sizes = len({expected.shape[1:] for expected in reference}) == 1 and reference[0].dim() > 0
    ours, theirs = (
        torch.cat([(one if same_sizes else one.flatten()).detach().float().cpu() for one in found])
        for found in (outputs, reference)
    )
    deviation = float(theirs.std()) if theirs.numel() > 1 else 0.0
    distance = float((ours - theirs).abs().mean())
    difference = distance / deviation if deviation else (0.0 if distance == 0 else float("inf"))
    classes = theirs.dim() > 1 and theirs.shape[1] > 1
    same = float((ours.argmax(1) == theirs.argmax(1)).float().mean()) if classes else 1.0
    return Agreement(samples, same, difference)


def worst_agreement(outputs: Sequence[Any], reference: Sequence[Any]) -> Agreement:
    """Return the agreement of the tensor that differs most, of outputs with several tensors.

    Args:
        outputs: One output per batch: a tensor, or a container of tensors.
        reference: Outputs of the reference, with the same number of tensors.

    Raises:
        ValueError: If the numbers of tensors differ.

    """
    ours, theirs = ([compared_tensors(output) for output in found] for found in (outputs, reference))
    if {len(tensors) for tensors in ours} != {len(tensors) for tensors in theirs}:
        raise ValueError(f"The outputs should have {len(theirs[0])} tensors as the reference has, got {len(ours[0])}.")
    parts = [agreement(a, b) for a, b in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)]
    return max(parts, key=lambda part: (not part.difference <= float("inf"), part.difference))
