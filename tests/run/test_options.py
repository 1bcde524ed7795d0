"""Joining the options of several callbacks."""

import pytest

from lightning_green.grid.providers.function import FunctionSignal
from lightning_green.run.options import RunOptions


def test_default_option_takes_the_value_of_the_other_callback():
    grid = FunctionSignal(lambda at: 1.0)
    asked = RunOptions(grid=grid, pue=1.2).join(RunOptions(zone="DE", meter=300.0))
    assert (asked.grid, asked.zone, asked.pue, asked.meter) == (grid, "DE", 1.2, 300.0)
    assert RunOptions(meter=300.0).join(RunOptions(meter=300.0)).meter == 300.0
    assert RunOptions().join(RunOptions()) == RunOptions()


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [("grid", "typical:DE", "typical:FR"), ("meter", 300.0, 400.0), ("zone", "DE", "FR"), ("pue", 1.1, 1.2)],
)
def test_contradicting_options_raise_with_both_values(name, one, other):
    with pytest.raises(ValueError, match=f"different `{name}`: {one!r} and {other!r}. Give it to one of them"):
        RunOptions(**{name: one}).join(RunOptions(**{name: other}))
