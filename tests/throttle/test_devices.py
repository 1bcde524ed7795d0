"""Names of levels and the actuators that set them."""

from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
from lightning_green.throttle.devices import LevelDevices
from tests.helpers.powercap import limits, packages


def test_first_of_two_actuators_with_the_same_setting_has_precedence(tmp_path):
    folders = [packages(tmp_path / name) for name in ("first", "second")]
    devices = LevelDevices([RaplPowerLimit([100], powercap=folder) for folder in folders])
    devices.add_all()
    (name,) = devices.names
    assert devices.apply(name)
    assert limits(folders[0]) != limits(folders[1]) == [200.0, 150.0]
