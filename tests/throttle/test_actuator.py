"""Behavior that all actuators share."""

from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
from tests.helpers.powercap import limits, packages


def test_device_is_not_changed_if_journal_cannot_be_written(tmp_path):
    folder = packages(tmp_path / "powercap")
    cap = RaplPowerLimit([100], powercap=folder)
    cap.bind(tmp_path / "missing")
    assert not cap.set(cap.levels()[1])
    assert limits(folder) == [200.0, 150.0]
