"""Whether two models give the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Agreement:
    """How far two models' outputs agree.

    Args:
        samples: How many samples were compared.
        same_class: Fraction of them with the same largest output (along dimension 1); 1.0 where there are no classes.
        difference: Mean absolute difference as a fraction of the outputs' standard deviation.

    """

    samples: int
    same_class: float
    difference: float

    def require(self, difference: float, what: str, than: str) -> None:
        """Raise a ``ValueError`` if the difference is above ``difference``, or not a number."""
        if not self.difference <= difference:
            raise ValueError(
                f"{what} should answer like {than}, but over {self.samples} samples its outputs differ by "
                f"{self.difference:.3f} of their standard deviation (at most {difference}) and the largest is the same "
                f"for {self.same_class:.1%}. Calibrate or train quantized for longer, or keep the layers that suffer "
                "in float with `keep_float`."
            )


def agreement(outputs: Sequence[Tensor], reference: Sequence[Tensor]) -> Agreement:
    """Compare the outputs of a model, batch by batch, with a reference's.

    Args:
        outputs: One tensor a batch; samples along dimension 0, classes, if any, along dimension 1.
        reference: The same of the reference.

    >>> agreement([torch.tensor([[1.0, 0.0], [0.0, 1.0]])], [torch.tensor([[1.0, 0.0], [1.0, 0.0]])]).same_class
    0.5

    """
    ours = torch.cat([o.detach().float().cpu() for o in outputs])
    theirs = torch.cat([r.detach().float().cpu() for r in reference])
    deviation = float(theirs.std()) if theirs.numel() > 1 else 0.0
    distance = float((ours - theirs).abs().mean())
    difference = distance / deviation if deviation else (0.0 if distance == 0 else float("inf"))
    classes = theirs.dim() > 1 and theirs.shape[1] > 1
    same = float((ours.argmax(1) == theirs.argmax(1)).float().mean()) if classes else 1.0
    return Agreement(len(theirs), same, difference)
