"""Granularity of pruning: single weights, n of every m, blocks, or whole channels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_green.compression.pruning.masks import block_mask, can_be_n_m, global_masks, n_m_mask, unstructured_mask


@dataclass(frozen=True)
class Granularity:
    """A parsed granularity.

    Args:
        kind: ``"unstructured"``, ``"n:m"``, ``"block"`` or ``"channels"``.
        first: n, or the rows of a block.
        second: m, or the columns of a block.

    """

    kind: Literal["unstructured", "n:m", "block", "channels"]
    first: int = 1
    second: int = 1

    @classmethod
    def parse(cls, text: str) -> Granularity:
        """Return the granularity named ``"unstructured"``, ``"2:4"``, ``"4x1"`` (a block) or ``"channels"``.

        Raises:
            ValueError: If the text is none of these, or n is not in [1, m).

        Examples:
            >>> Granularity.parse("2:4")
            Granularity(kind='n:m', first=2, second=4)

        """
        if text == "unstructured":
            return cls("unstructured")
        if text == "channels":
            return cls("channels")
        if match := re.fullmatch(r"(\d+):(\d+)", text):
            n, m = int(match.group(1)), int(match.group(2))
            if 1 <= n < m:
                return cls("n:m", n, m)
        if (match := re.fullmatch(r"(\d+)x(\d+)", text)) and int(match.group(1)) * int(match.group(2)) > 1:
            return cls("block", int(match.group(1)), int(match.group(2)))
        raise ValueError(
            "`granularity` should be 'unstructured', 'channels', n:m such as '2:4', or a block such as '4x1' "
            f"(outputs x inputs), got {text!r}."
        )

    def fits(self, shape: torch.Size) -> bool:
        """Return whether a weight of this shape supports the granularity."""
        return can_be_n_m(shape, self.second) if self.kind == "n:m" else True


def masks_for(
    scores: Mapping[str, Tensor], sparsity: float | Mapping[str, float], granularity: Granularity
) -> dict[str, Tensor]:
    """Return masks with a given sparsity.

    Args:
        scores: Scores by parameter name.
        sparsity: One number for all parameters together (for blocks and n:m, for each of them), or one number for each
            parameter by name.
        granularity: Any granularity except channels.

    """
    if granularity.kind == "unstructured" and isinstance(sparsity, (int, float)):
        return global_masks(scores, float(sparsity))
    masks = {}
    for name, score in scores.items():
        wanted = sparsity[name] if isinstance(sparsity, Mapping) else float(sparsity)
        if granularity.kind == "unstructured":
            masks[name] = unstructured_mask(score, wanted)
        elif granularity.kind == "block":
            masks[name] = block_mask(score, wanted, granularity.first, granularity.second)
        else:
            n, m = granularity.first, granularity.second
            # Before the target: as many of m as the current sparsity permits. The margin absorbs rounding errors.
            masks[name] = n_m_mask(score, max(n, m - int(wanted * m + 1e-6)), m)
    return masks
