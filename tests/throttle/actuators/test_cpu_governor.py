"""The CPU governor, on a directory like ``/sys/devices/system/cpu/cpufreq``."""

from lightning_green.planning import Level
from lightning_green.throttle.actuators.cpu_governor import CpuGovernor


def test_offers_slower_governors_only(tmp_path):
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


def test_stated_level_has_no_governor(tmp_path):
    assert CpuGovernor(tmp_path).setting_for(Level(0.7, 0.9)) is None
