"""Validation and start hours of a scenario."""

import pytest

from lightning_green.backtest import Backtest
from tests.helpers.zone_archives import FIRST, make_archive

SHORT = Backtest(work_hours=6, window_hours=14, every_days=5)


def test_starts_need_history_or_forecasts_and_a_complete_window():
    with_forecasts, without = make_archive(days=16), make_archive(days=16, forecasts=False)
    assert SHORT.starts(with_forecasts)[0] == FIRST + 9
    assert SHORT.starts(without)[0] == FIRST + 7 * 24 + 9
    assert max(SHORT.starts(without)) + 14 <= without.end
    with pytest.raises(ValueError, match="too few for a run"):
        SHORT.run(make_archive(days=7, forecasts=False))


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [({"work_hours": 0}, "work_hours"), ({"window_hours": -1}, "window_hours"), ({"hold_power": 1.1}, "hold_power"),
     ({"start_hour": 24}, "start_hour"), ({"every_days": 0}, "every_days"), ({"lag_hours": -1}, "lag_hours"),
     ({"pauses": frozenset({"sleep"})}, "pauses")],
)  # fmt: skip
def test_invalid_argument_raises(kwargs, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        Backtest(**kwargs)
