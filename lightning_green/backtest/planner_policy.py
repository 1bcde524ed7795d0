"""The planner as a backtest policy."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np

from lightning_green.backtest.observation import Observation
from lightning_green.backtest.policies import RUN, Choice, Start, next_choice
from lightning_green.planning.forecast import Forecast
from lightning_green.planning.forecasting.correction import DailyCorrection
from lightning_green.planning.forecasting.features import DAY, compute_features
from lightning_green.planning.forecasting.history import History
from lightning_green.planning.job import State
from lightning_green.planning.planner import plan
from lightning_green.planning.plans import Action

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
        self._daily = DailyCorrection()

    def __call__(self, observation: Observation) -> Choice | Start:
        """Return the action of the hour that starts."""
        if not len(observation.history) and not (self.use_forecast and len(observation.issued)):
            return RUN
        now = datetime.fromtimestamp(observation.hour * 3600, timezone.utc)
        job = observation.scenario.job(
            observation.hour, observation.remaining_work, observation.hours_to_deadline, STATES[observation.state]
        )
        if self.caution is not None:
            job = replace(job, caution=self.caution)
        return next_choice(plan(job, self.forecast(observation, now), now).slots, now, observation)

    def forecast(self, observation: Observation, now: datetime) -> Forecast:
        """Return the forecast of the hours until the deadline that the planner gets."""
        count = int(np.ceil(observation.hours_to_deadline - 1e-9))
        times = [now + timedelta(hours=hour) for hour in range(count)]
        if not self.correct or not len(observation.history):
            return Forecast(times, observation.outlook())
        lag = observation.hour - observation.known_until + 1
        shown = slice(None) if self.use_forecast else slice(0)
        begin = observation.known_until - len(observation.history)
        history = History(begin, observation.history, observation.issued[shown], observation.forecasts[shown])
        recent = history.known_at(observation.hour, lag, FEATURE_MEMORY)
        features = compute_features(recent, np.array([observation.hour]), count, lag)
        values, spread = self._daily.at(history, observation.hour, lag).predict(features)
        ahead, error = values[0].copy(), spread[0].copy()
        known = min(len(observation.perfect), count)
        ahead[:known], error[:known] = observation.perfect[:known], 0.0
        return Forecast(times, ahead, error)


class HistoryOnlyPlannerPolicy(PlannerPolicy):
    """The planner without forecasts: it predicts from the history alone."""

    def __init__(self) -> None:
        super().__init__(use_forecast=False)
