"""Arguments that both precision plugins share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

PRECISIONS = ("auto", "bf16", "fp16", "fp32")
FALLBACKS = ("auto", "bf16", "fp32", "none")


@dataclass(frozen=True)
class PrecisionSettings:
    """Validated arguments of a precision plugin; ``GreenMixedPrecision`` describes each.

    Raises:
        ValueError: If an argument is invalid.

    """

    precision: str
    keep_fp32: Sequence[str | type[nn.Module]]
    max_consecutive_skips: int
    min_scale: float
    init_scale: float
    growth_interval: int
    fallback: str = "none"

    def __post_init__(self) -> None:
        """Validate the arguments."""
        for name, value, allowed in (
            ("precision", self.precision, PRECISIONS),
            ("fallback", self.fallback, FALLBACKS),
        ):
            if value not in allowed:
                raise ValueError(f"`{name}` should be one of {', '.join(map(repr, allowed))}, got {value!r}.")
        if isinstance(self.keep_fp32, str):
            raise ValueError(
                f"`keep_fp32` should be a list of names or types, got {self.keep_fp32!r}; write [{self.keep_fp32!r}]."
            )
        if self.max_consecutive_skips < 1:
            raise ValueError(f"`max_consecutive_skips` should be 1 or more, got {self.max_consecutive_skips!r}.")
        if not self.init_scale >= self.min_scale > 0:
            raise ValueError(
                f"`min_scale` should be above 0 and at most `init_scale` ({self.init_scale!r}), got {self.min_scale!r}."
            )
