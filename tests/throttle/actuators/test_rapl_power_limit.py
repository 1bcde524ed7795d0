"""The power limit of CPU packages, on directories like ``/sys/class/powercap``."""

from pathlib import Path

from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
from tests.helpers.powercap import limits, packages


def test_sets_and_restores_limit_of_packages(tmp_path):
    folder = packages(tmp_path / "powercap")
    cap = RaplPowerLimit([120, 170], powercap=folder)
    cap.bind(tmp_path)
    assert [level.value for level in cap.levels()] == [150.0, 120.0]
    cap.set(cap.levels()[1])
    assert limits(folder) == [120.0, 120.0]
    cap.restore()
    assert limits(folder) == [200.0, 150.0]


def test_missing_permission_reports_remedy(tmp_path, monkeypatch):
    folder = packages(tmp_path / "powercap")

    def refuse(self, *args, **kwargs):  # the tests may run as root, for whom file modes do not apply
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    cap = RaplPowerLimit(powercap=folder)
    assert cap.levels() == ()
    assert "run as root" in cap.problem
