"""Stop a training when an improvement costs too much energy."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lightning_green.callbacks._green import GreenCallback
from lightning_green.callbacks.emissions_tracker import check_options
from lightning_green.energy.meter import Meter
from lightning_green.run.options import RunOptions
from lightning_green.utilities.clock import Clock
from lightning_green.utilities.validation import check_choice, check_number

_WORK = ("training", "data_wait", "validation")
"""Phases whose energy is the cost of an improvement: a training that is interrupted has the same."""

_ROUNDING = 1e-4
"""Part of a point that a metric in float32 may lack."""


class EnergyEarlyStopping(GreenCallback):
    r"""Stop a training when one more point of a metric costs more than a number of joules.

    After each validation, the energy of training and validation since the metric last improved by a point is compared
    with the limit. The training stops when that energy exceeds ``max_joules_per_point`` for each point that was gained.
    The energy of pauses, restarts and checkpoints does not count, so an interrupted training stops where the
    uninterrupted one does, within the accuracy of its meter.

    Args:
        monitor: Name of a logged metric of the validation.
        max_joules_per_point: Most energy in J that one point may cost.
        point: Size of a point: 0.01 for a metric in [0, 1], such as an accuracy.
        mode: ``"max"`` if a larger metric is better, ``"min"`` if a smaller one is.
        meter: See ``EmissionsTracker``.
        clock: Clock of the run; the system clock by default.

    Raises:
        ValueError: If an argument is out of its range.
        RuntimeError: If the validation does not log the metric.
        TypeError: If an argument is of a wrong type.

    Examples:
        ```python
        from lightning_green import EnergyEarlyStopping
        Trainer(callbacks=[EnergyEarlyStopping("val/accuracy", max_joules_per_point=50_000)])
        ```

    """

    def __init__(
        self,
        monitor: str,
        max_joules_per_point: float,
        point: float = 0.01,
        mode: Literal["max", "min"] = "max",
        meter: Meter | str | float | None = "auto",
        clock: Clock | None = None,
    ) -> None:
        check_options(None, None, meter)
        super().__init__(RunOptions(meter=meter, clock=clock))
        if not isinstance(monitor, str) or not monitor:
            raise TypeError(f"`monitor` should be the name of a metric, got {monitor!r}.")
        self.monitor = monitor
        self.max_joules_per_point = check_number("max_joules_per_point", max_joules_per_point, above_low=True, unit="J")
        self.point = check_number("point", point, above_low=True)
        self.mode = check_choice("mode", mode, ("max", "min"))
        self.best: float | None = None
        self.joules = self.joules_of_best = 0.0
        self._measured: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_measured": None}

    @override
    def settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("monitor", "max_joules_per_point", "point", "mode")}

    @override
    def state_dict(self) -> dict[str, Any]:
        self._count()
        return {"best": self.best, "joules": self.joules, "joules_of_best": self.joules_of_best}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.joules = state_dict["best"], state_dict["joules"]
        self.joules_of_best = state_dict["joules_of_best"]
        training = self._fit is not None and self._fit.session.announced  # a state is also loaded to try it
        self._measured = self._work_joules() if training else None

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._measured = self._work_joules()

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.sanity_checking or self._fit is None:
            return
        self._count()
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            logged = ", ".join(map(repr, trainer.callback_metrics)) or "nothing"
            raise RuntimeError(
                f"`monitor` should be a metric that the validation logs, got {self.monitor!r}; it logs {logged}."
            )
        reason = self._compare(float(value)) if trainer.global_rank == 0 else ""
        if trainer.world_size > 1:
            reason = trainer.strategy.broadcast(reason)
        if reason:
            trainer.should_stop = True
            self._fit.ending.why_finished = reason
            rank_zero_info(f"Lightning Green, step {trainer.global_step}: {reason}. The training stops.")

    def _compare(self, value: float) -> str:
        """Return why the training stops, or an empty string."""
        if not math.isfinite(value):
            return ""
        spent = self.joules - self.joules_of_best
        gained = 0.0 if self.best is None else (value - self.best) * (1.0 if self.mode == "max" else -1.0) / self.point
        if self.best is None or gained >= 1.0 - _ROUNDING:
            first, self.best, self.joules_of_best = self.best is None, value, self.joules
            if first or spent <= gained * self.max_joules_per_point:
                return ""
            cost = f"the last {gained:.3g} points of {self.monitor} have cost {spent:.4g} J"
        elif spent <= self.max_joules_per_point:
            return ""
        else:
            cost = f"{self.monitor} has not improved by a point of {self.point:g} for {spent:.4g} J"
        return f"{cost}, more than {self.max_joules_per_point:g} J a point"

    def _count(self) -> None:
        """Add the energy since the last call. It is part of the state, which a restart continues."""
        now = self._work_joules()
        if now is not None and self._measured is not None:
            self.joules += max(0.0, now - self._measured)
        self._measured = now

    def _work_joules(self) -> float | None:
        """Return the energy of training and validation of this fit so far in J, on rank 0."""
        fit = self._fit
        if fit is None or fit.trainer.global_rank:
            return None
        recorder = fit.session.recorder
        with recorder.lock:
            since = recorder.since_last() if recorder.status.phase in _WORK else 0.0
            return sum(recorder.totals.joules_by_phase.get(name, 0.0) for name in _WORK) + since
