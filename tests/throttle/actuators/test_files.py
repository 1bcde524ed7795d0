"""The actuators that are files, against trees of our own."""

import os
from pathlib import Path

import pytest

from lightning_green.throttle.actuators.cgroup_cpu_max import CgroupCpuMax
from lightning_green.throttle.actuators.cpu_governor import CpuGovernor
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
from tests.throttle.trees import limits, packages


def test_rapl_limits_packages(tmp_path):
    folder = packages(tmp_path / "powercap")
    cap = RaplPowerLimit([120, 170], powercap=folder)
    cap.bind(tmp_path)
    assert [level.value for level in cap.levels()] == [150.0, 120.0]
    cap.set(cap.levels()[1])
    assert limits(folder) == [120.0, 120.0]
    cap.restore()
    assert limits(folder) == [200.0, 150.0]


def test_governor_offers_only_what_is_slower(tmp_path):
    for number in range(2):
        policy = tmp_path / f"policy{number}"
        policy.mkdir()
        (policy / "scaling_governor").write_text("schedutil\n")
        (policy / "scaling_available_governors").write_text("performance schedutil powersave\n")
    governor = CpuGovernor(tmp_path)
    assert [level.name for level in governor.levels()] == ["schedutil", "powersave"]
    governor.set(governor.levels()[1])
    assert {path.read_text() for path in tmp_path.glob("policy*/scaling_governor")} == {"powersave\n"}
    governor.restore()
    assert {path.read_text() for path in tmp_path.glob("policy*/scaling_governor")} == {"schedutil\n"}
    assert CpuGovernor(tmp_path / "none").levels() == ()


@pytest.mark.parametrize(("text", "full"), [("max 100000", None), ("400000 100000", 4.0), ("max", None)])
def test_cgroup(tmp_path, text, full):
    (tmp_path / "cpu.max").write_text(text + "\n")
    group = CgroupCpuMax([0.5], group=tmp_path)
    assert group.levels()[0].value == (full or float(os.cpu_count()))
    group.set(group.levels()[1])
    assert (tmp_path / "cpu.max").read_text() == "50000 100000\n"
    group.restore()
    assert (tmp_path / "cpu.max").read_text() == text + "\n"


def test_a_file_that_may_not_be_written(tmp_path, monkeypatch):
    folder = packages(tmp_path / "powercap")

    def refuse(self, *args, **kwargs):  # the tests may run as root, whom no file mode stops
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    cap = RaplPowerLimit(powercap=folder)
    assert cap.levels() == ()
    assert "run as root" in cap.problem
