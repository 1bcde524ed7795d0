"""The planner as a backtest policy."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np

from lightning_green.backtest.observation import Observation
from lightning_green.backtest.policies import RUN, Choice
from lightning_green.planning.forecast import Forecast
from lightning_green.planning.forecasting.correction import Correction, fit_correction
from lightning_green.planning.forecasting.features import DAY, compute_features
from lightning_green.planning.forecasting.history import History
from lightning_green.planning.job import State
from lightning_green.planning.planner import plan
from lightning_green.planning.plans import Action

FIT_MEMORY = 90 * DAY
FEATURE_MEMORY = 35 * DAY
STATES: dict[Action, State] = {"run": "running", "throttle": "throttled", "hold": "held", "exit": "out"}


class PlannerPolicy:
    """Correct the newest forecast, plan, and carry out the first action of the plan; repeated every hour.

    The correction is fitted once a day, on the history that was known at midnight (UTC). Use a new object for every
    archive.

    Args:
        use_forecast: Whether to use forecasts; False predicts from the history alone.
        correct: Whether to correct the published forecast.
        caution: Minimum saving of a pause in standard deviations; None for the default of ``Job``.

    """

    def __init__(self, *, use_forecast: bool = True, correct: bool = True, caution: float | None = None) -> None:
        self.use_forecast = use_forecast
        self.correct = correct
        self.caution = caution
        self._corrections: dict[int, Correction] = {}

    def __call__(self, observation: Observation) -> Choice:
        """Return the action of the hour that starts."""
        if not len(observation.history) and not (self.use_forecast and len(observation.issued)):
            return RUN
        now = datetime.fromtimestamp(observation.hour * 3600, timezone.utc)
        job = observation.scenario.job(
            observation.hour, observation.remaining_work, observation.hours_to_deadline, STATES[observation.state]
        )
        if self.caution is not None:
            job = replace(job, caution=self.caution)
        first = plan(job, self.forecast(observation, now), now).slots[0]
        return first.action, first.level

    def forecast(self, observation: Observation, now: datetime) -> Forecast:
        """Return the forecast of the hours until the deadline that the planner gets."""
        count = int(np.ceil(observation.hours_to_deadline - 1e-9))
        times = [now + timedelta(hours=hour) for hour in range(count)]
        if not self.correct or not len(observation.history):
            return Forecast(times, observation.outlook())
        lag = observation.hour - observation.known_until + 1
        midnight = observation.hour // DAY * DAY
        if midnight not in self._corrections:
            self._corrections[midnight] = fit_correction(self._history(observation, midnight, lag, FIT_MEMORY), lag)
        history = self._history(observation, observation.hour, lag, FEATURE_MEMORY)
        features = compute_features(history, np.array([observation.hour]), count, lag)
        values, spread = self._corrections[midnight].predict(features)
        return Forecast(times, values[0], spread[0])

    def _history(self, observation: Observation, hour: int, lag: int, memory: int) -> History:
        """Return the last ``memory`` hours of the history that was known in ``hour``."""
        begin = observation.known_until - len(observation.history)
        first, until = max(begin, hour - memory), max(begin, hour - lag + 1)
        issued = (observation.issued <= hour) & (observation.issued >= hour - memory) & self.use_forecast
        actual = observation.history[first - begin : until - begin]
        return History(first, actual, observation.issued[issued], observation.forecasts[issued])


class HistoryOnlyPlannerPolicy(PlannerPolicy):
    """The planner without forecasts: it predicts from the history alone."""

    def __init__(self) -> None:
        super().__init__(use_forecast=False)
