"""A pause in process: the training waits between two batches and keeps its device."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from lightning.pytorch.utilities import rank_zero_info

from lightning_green._lightning.loggers import logging_step
from lightning_green._lightning.progress_bars import refresh_progress_bars
from lightning_green.planning import Plan
from lightning_green.resume.random_states import synchronize_cuda
from lightning_green.run import loggers
from lightning_green.run.fit import Fit
from lightning_green.strategies.control_group import Command
from lightning_green.utilities.durations import format_duration

TICK_SECONDS = 1.0
LOG_SECONDS = 60.0
SIMULATED_TICK_SECONDS = 900.0


class Hold:
    """Pauses a fit in process until its plan or another callback ends the hold, or a signal asks to stop.

    Args:
        fit: The fit.
        power: Power during the hold as a fraction of full power.
        replan: Returns a new plan, or None if nothing can be decided.
        has_news: Returns whether there is a reason to plan again before the slot ends.

    """

    def __init__(
        self,
        fit: Fit,
        power: float,
        replan: Callable[[], Plan | None],
        has_news: Callable[[], bool] = lambda: False,
    ) -> None:
        self._fit, self._power, self._replan, self._has_news = fit, power, replan, has_news
        self._began = self._held_from = 0.0
        self._intensity: float | None = None

    def run(self, plan: Plan) -> Plan | None:
        """Hold as planned, and plan again whenever a slot ends or there is news.

        Returns:
            The last plan: its first action is what to do next. None if nothing can be decided any more.

        """
        fit, session = self._fit, self._fit.session
        assert fit.boundaries is not None
        self._begin(plan.reason, plan.until)
        tick = SIMULATED_TICK_SECONDS if session.clock.is_simulated else TICK_SECONDS
        next_log = session.clock.time() + LOG_SECONDS
        next_plan = plan.slots[0].end.timestamp()
        latest: Plan | None = plan
        while not fit.boundaries.stop_requested() and not any(ends() for ends in fit.hold_ends):
            now = session.clock.time()
            if now >= next_plan or self._has_news():
                latest = self._replan()
                if latest is None or latest.slots[0].action != "hold":
                    break
                next_plan = latest.slots[0].end.timestamp()
            if now >= next_log:
                session.sample_if_due()
                self._log()
                next_log = now + LOG_SECONDS
            session.clock.sleep(max(0.0, min(tick, next_plan - now)))
        return latest

    def _begin(self, reason: str, until: datetime) -> None:
        session = self._fit.session
        self._began, self._held_from = time.monotonic(), session.clock.monotonic()
        self._intensity = self._intensity_now()
        synchronize_cuda()
        session.meter.set_load(self._power)
        session.recorder.enter(state="held", phase="held", reason=reason, until=until)
        self._fit.ranks.send(Command.HOLD, self._power)
        self._log()

    def end(self) -> None:
        """Resume training and print it; not called if the fit exits from the hold."""
        session = self._fit.session
        assert self._fit.boundaries is not None
        session.meter.set_load(1.0)
        self._fit.boundaries.end_hold(time.monotonic() - self._began)
        reason, now = (
            f"Resumed after {format_duration(session.clock.monotonic() - self._held_from)}",
            self._intensity_now(),
        )
        if now is not None and self._intensity is not None:
            reason += f": {self._intensity:.0f} -> {now:.0f} gCO2e/kWh"
        session.recorder.enter(state="running", phase="training", reason=f"{reason}.")
        rank_zero_info(f"Lightning Green, step {self._fit.trainer.global_step}: {reason}.")
        refresh_progress_bars(self._fit.trainer)

    def _intensity_now(self) -> float | None:
        session = self._fit.session
        reading = None if session.grid is None else session.grid.intensity(session.clock.now())
        return None if reading is None else reading.value

    def _log(self) -> None:
        trainer = self._fit.trainer
        loggers.log_to_all(trainer, self._fit.session.metrics(), logging_step(trainer))
        refresh_progress_bars(trainer)
