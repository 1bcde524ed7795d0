"""Behavior that all actuators share."""

from lightning_green.planning import Level
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
from tests.helpers.powercap import limits, packages


def test_device_is_not_changed_if_journal_cannot_be_written(tmp_path):
    folder = packages(tmp_path / "powercap")
    cap = RaplPowerLimit([100], powercap=folder)
    cap.bind(tmp_path / "missing")
    assert not cap.set(cap.levels()[1])
    assert limits(folder) == [200.0, 150.0]


def test_own_fractions_are_kept_over_fits_with_and_without_stated_levels(tmp_path):
    cap = RaplPowerLimit(powercap=packages(tmp_path / "powercap"))
    cap.fractions = (0.95, 0.9)
    own = cap.levels()
    for stated in ([], [Level(0.5, 0.7)], []):
        cap.prepare(None, stated)
        assert (cap.levels() == own) is not bool(stated)
