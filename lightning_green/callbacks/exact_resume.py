"""Exact resume, and nothing else."""

from __future__ import annotations

from datetime import timedelta

import lightning.pytorch as pl
from typing_extensions import override

from lightning_green.callbacks._green import GreenCallback
from lightning_green.run.options import RunOptions
from lightning_green.utilities.durations import parse_duration


class ExactResume(GreenCallback):
    r"""Continue a stopped training with the weights of the training that never stopped.

    Args:
        every: Save the exact state this often, so that a kill costs no more than that; None for never.
        allow_inexact: Whether a run may be continued with another number of processes: at the same share of the epoch,
            with other samples in it and other random numbers. False refuses that by name.

    Raises:
        ValueError: If ``every`` cannot be read as a duration.
        TypeError: If ``allow_inexact`` is no bool.

    Examples:
        ```python
        from lightning_green import ExactResume
        Trainer(callbacks=[ExactResume(every="15m")])
        # lightning-green run -- python train.py
        ```

    """

    wants_exact = True

    def __init__(self, every: str | timedelta | None = "15m", allow_inexact: bool = False) -> None:
        if not isinstance(allow_inexact, bool):
            raise TypeError(f"`allow_inexact` should be True or False, got {allow_inexact!r}.")
        super().__init__(RunOptions(meter="auto"))
        self.allow_inexact = allow_inexact
        self.every = None if every is None else parse_duration(every, "every")

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._fit is not None:
            self._fit.recorded.allow_inexact = self.allow_inexact
            self._fit.save_every(self.every)
        super().setup(trainer, pl_module, stage)
