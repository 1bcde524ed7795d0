"""Settings of the communication of gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightning_green.utilities.validation import check_choice, check_number, check_positive_int

Compression = Literal["bf16", "fp16", "low_rank"]
"""How gradients are compressed."""


@dataclass(frozen=True)
class CommunicationOptions:
    """Settings of the communication of gradients.

    Args:
        compression: How gradients are compressed; None for not at all.
        compression_rank: Number of columns of the two factors of a low-rank gradient.
        start_compression_at_step: Optimizer step from which gradients are compressed.
        average_every: Optimizer steps from one average of the parameters to the next; None sends every gradient.
        start_averaging_at_step: Optimizer step from which parameters are averaged and no gradients are sent.
        joules_per_byte: Energy of one byte that a rank sends.

    Raises:
        ValueError: If a value is invalid, or low-rank compression and averaging are combined.

    """

    compression: Compression | None
    compression_rank: int
    start_compression_at_step: int
    average_every: int | None
    start_averaging_at_step: int
    joules_per_byte: float

    def __post_init__(self) -> None:
        if self.compression is not None:
            check_choice("compression", self.compression, ("bf16", "fp16", "low_rank"))
        check_positive_int("compression_rank", self.compression_rank)
        check_number("joules_per_byte", self.joules_per_byte, low=0.0)
        for name in ("start_compression_at_step", "start_averaging_at_step"):
            step = getattr(self, name)
            if isinstance(step, bool) or not isinstance(step, int) or step < 0:
                raise ValueError(f"`{name}` should be an integer of at least 0, got {step!r}.")
        if self.average_every is not None:
            check_positive_int("average_every", self.average_every)
            if self.compression == "low_rank":
                raise ValueError(
                    "`average_every` should be None with `compression='low_rank'`: once gradients are no longer sent, "
                    'their errors would be lost. Use `compression="bf16"` or None.'
                )
