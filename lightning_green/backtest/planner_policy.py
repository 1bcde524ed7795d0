"""The planner as a policy of the backtest."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np

from lightning_green.backtest.observation import View
from lightning_green.backtest.policies import RUN, Choice
from lightning_green.planning.forecast import Forecast
from lightning_green.planning.forecasting.correction import DAY, Correction, clues, learn
from lightning_green.planning.forecasting.history import Past
from lightning_green.planning.job import Job, State
from lightning_green.planning.plan import Action
from lightning_green.planning.planner import plan

MEMORY = 90 * DAY
RECENT = 35 * DAY
STATES: dict[Action, State] = {"run": "running", "throttle": "throttled", "hold": "held", "exit": "out"}


class PlannerPolicy:
    """Corrects the newest forecast from the past, plans, and does what the plan begins with; every hour anew.

    What is learned from the past is learned once a day, from what was known at midnight (UTC); an object is therefore
    to be used for one archive only.

    Args:
        use_forecast: False for the history alone.
        correct: False to take the forecast as it is published.
        caution: How many standard deviations of its own uncertainty a pause has to save.

    """

    def __init__(self, *, use_forecast: bool = True, correct: bool = True, caution: float | None = None) -> None:
        self.use_forecast = use_forecast
        self.correct = correct
        self.caution = caution
        self._learned: dict[int, Correction] = {}

    def __call__(self, view: View) -> Choice:
        """Return what to do in the hour that begins."""
        if not len(view.past) and not (self.use_forecast and len(view.issued)):
            return RUN
        now = datetime.fromtimestamp(view.hour * 3600, timezone.utc)
        job = Job(
            work_hours=view.work_left,
            deadline=now + timedelta(hours=view.hours_left),
            levels=view.levels,
            hold_power=view.hold_power,
            resume_cost=view.resume_cost,
            pauses=view.pauses,
            state=STATES[view.state],
            idle_power=view.idle_power,
            embodied_rate=view.embodied_rate,
            safety=0.0,
            **({} if self.caution is None else {"caution": self.caution}),
        )
        first = plan(job, self.forecast(view, now), now).slots[0]
        return first.action, first.level

    def forecast(self, view: View, now: datetime) -> Forecast:
        """Return what the planner is told about the hours until the deadline."""
        count = int(np.ceil(view.hours_left - 1e-9))
        times = [now + timedelta(hours=hour) for hour in range(count)]
        if not self.correct or not len(view.past):
            return Forecast(times, view.outlook())
        lag = view.hour - view.known_until + 1
        midnight = view.hour // DAY * DAY
        if midnight not in self._learned:
            self._learned[midnight] = learn(self._past(view, midnight, lag, MEMORY), lag)
        seen = clues(self._past(view, view.hour, lag, RECENT), np.array([view.hour]), count, lag)
        values, spread = self._learned[midnight].predict(seen)
        return Forecast(times, values[0], spread[0])

    def _past(self, view: View, hour: int, lag: int, memory: int) -> Past:
        """Return the last ``memory`` hours of what was known in ``hour``."""
        begin = view.known_until - len(view.past)
        first, until = max(begin, hour - memory), max(begin, hour - lag + 1)
        issued = (view.issued <= hour) & (view.issued >= hour - memory) & self.use_forecast
        return Past(first, view.past[first - begin : until - begin], view.issued[issued], view.forecasts[issued])
