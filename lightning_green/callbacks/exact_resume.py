"""Exact resume of interrupted trainings."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from lightning_green.callbacks._green import GreenCallback
from lightning_green.run.options import RunOptions
from lightning_green.utilities.durations import parse_duration


class ExactResume(GreenCallback):
    r"""Resume an interrupted training so that it ends with the weights of an uninterrupted one.

    Args:
        every: Time between two saves of the exact state, which bounds the work that a kill loses; None saves only
            before a planned exit and on a signal.
        allow_inexact: Whether a run may continue with another number of processes, approximately: after the same share
            of the epoch, but with other samples and other random numbers. If False, this raises an error.

    Raises:
        ValueError: If ``every`` is not a duration.
        TypeError: If ``allow_inexact`` is not a bool.

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
    def settings(self) -> dict[str, Any]:
        return {"every": self.every, "allow_inexact": self.allow_inexact}

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._fit is not None:
            self._fit.save_every(self.every)
        super().setup(trainer, pl_module, stage)
