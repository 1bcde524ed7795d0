"""Base of the callbacks that throttle the devices."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from lightning_green.callbacks._green import GreenCallback
from lightning_green.run.throttling import SchedulerThrottle


class ThrottlingCallback(GreenCallback):
    """A callback with a throttle, which is restored whenever the training ends.

    Batches after an interruption, such as a validation, do not count for the measurement of the levels.
    """

    _throttle: SchedulerThrottle | None = None

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._throttle is not None:
            self._throttle.on_batch_start()

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        if self._throttle is not None and not trainer.sanity_checking:
            self._throttle.interrupt()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._throttle is not None:
            self._throttle.restore()
        super().teardown(trainer, pl_module, stage)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._throttle is not None:
            self._throttle.restore()
        super().on_exception(trainer, pl_module, exception)
