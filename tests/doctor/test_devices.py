"""Meters, GPUs and actuators: fake sensors and a fake driver, on which nothing may be changed."""

import os

import pytest

from lightning_green.doctor.actuators import examine_actuator, examine_actuators
from lightning_green.doctor.gpus import examine_gpus
from lightning_green.doctor.meters import examine_meter, examine_rapl
from lightning_green.energy.registry import build_meter
from lightning_green.throttle import Actuator
from lightning_green.throttle.actuators.cpu_governor import CpuGovernor
from lightning_green.throttle.actuators.nvml_cards import may_change_gpus
from lightning_green.throttle.actuators.nvml_power_limit import NvmlPowerLimit
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
from lightning_green.throttle.settings import Setting
from tests.helpers.fake_nvml import Card, FakeDriver
from tests.helpers.powercap import counters, packages


@pytest.fixture
def driver(monkeypatch):
    """Two GPUs of a job without the permission to change them."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return FakeDriver([Card("GPU-aa", root=False), Card("GPU-bb", root=False)]).install(monkeypatch)


@pytest.fixture
def no_permission(monkeypatch):
    """File modes do not apply to root, who may run the tests."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)


def test_meter_with_a_constant_power_is_limited_and_works():
    energy, other, rapl = examine_meter(build_meter("250"))
    assert (energy.level, energy.is_required) == ("ok", True)
    assert (other.name, other.level) == ("other", "limited")
    assert other.text.startswith("modeled by constant, ")
    assert rapl.name == "RAPL"


def test_meter_that_counts_nothing_is_missing():
    energy, *_ = examine_meter(build_meter(None))
    assert (energy.level, energy.is_required) == ("no", True)
    assert "--meter" in energy.remedy


def test_readable_rapl(tmp_path):
    assert examine_rapl(counters(tmp_path)).level == "ok"


def test_refused_rapl_has_the_exact_command(tmp_path, no_permission):
    found = examine_rapl(counters(tmp_path))
    assert found.level == "no"
    assert "intel-rapl:0" in found.text
    assert found.remedy.startswith(f"sudo chmod o+r {tmp_path}/intel-rapl:*/energy_uj")


def test_machine_without_rapl(tmp_path):
    found = examine_rapl(tmp_path)
    assert found.level == "no"
    assert "no energy counter" in found.text


def test_gpus_and_build_of_pytorch(driver):
    first, second, cuda = examine_gpus()
    assert [(one.name, one.level) for one in (first, second)] == [("GPU 0", "ok"), ("GPU 1", "ok")]
    assert "with an energy counter" in first.text
    assert cuda.name == "CUDA"
    assert driver.open == 0


def test_gpu_without_counter_and_mig_instance_are_limited(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    FakeDriver([Card("GPU-aa", has_counter=False), Card("GPU-bb", mig=[("MIG-1", 1, 0, 3)])]).install(monkeypatch)
    first, second, *_ = examine_gpus()
    assert (first.level, second.level) == ("limited", "limited")
    assert "no energy counter" in first.text
    assert "MIG instance" in second.text


def test_unknown_name_of_a_gpu(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    (found,) = examine_gpus()
    assert found.level == "limited"
    assert "'7'" in found.text
    assert "CUDA_VISIBLE_DEVICES" in found.remedy


def test_machine_without_gpu_has_no_limitation(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (found,) = examine_gpus()
    assert found.level == "ok"


def test_examining_actuators_changes_no_gpu(driver):
    for card in driver.cards:
        card.root = True
    names = [one.name for one in examine_actuators(has_gpu=True)]
    assert "nvml-power-limit" in names
    assert "zeusd-power-limit" in names
    changes = [name for name, _ in driver.calls if "Set" in name or "Reset" in name or "Update" in name]
    assert changes == []
    assert driver.open == 0


def test_gpu_without_permission_has_the_remedy(driver, monkeypatch):
    monkeypatch.setattr("lightning_green.throttle.actuators.nvml_actuator.may_change_gpus", lambda: False)
    found = examine_actuator("nvml-power-limit", NvmlPowerLimit())
    assert found.level == "no"
    assert found.text == "could set 630 W to 350 W, but this process lacks the permission"
    assert "--cap-add SYS_ADMIN" in found.remedy
    monkeypatch.setattr("lightning_green.throttle.actuators.nvml_actuator.may_change_gpus", lambda: True)
    assert examine_actuator("nvml-power-limit", NvmlPowerLimit()).text == "can set 630 W to 350 W; now 700 W"


def test_permission_of_gpus_is_that_of_the_capability(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nCapEff:\t000001ffffffffff\n")
    assert may_change_gpus(status)
    status.write_text("Name:\tpython\nCapEff:\t00000000a80425fb\n")  # root in a container
    assert not may_change_gpus(status)


def test_examining_a_power_limit_writes_no_file(tmp_path):
    folder = packages(tmp_path / "powercap")
    before = {path: (path.read_text(), path.stat().st_mtime_ns) for path in folder.rglob("*_uw")}
    found = examine_actuator("rapl-power-limit", RaplPowerLimit(powercap=folder))
    assert (found.level, found.text) == ("ok", "can set 135 W to 75 W; now 150 W")
    assert {path: (path.read_text(), path.stat().st_mtime_ns) for path in folder.rglob("*_uw")} == before


def test_refused_power_limit_has_the_remedy(tmp_path, no_permission):
    found = examine_actuator("rapl-power-limit", RaplPowerLimit(powercap=packages(tmp_path / "powercap")))
    assert found.level == "no"
    assert "no permission to write" in found.text
    assert found.remedy == "run as root or ask an administrator to make the file writable"


def test_machine_without_governor_has_the_reason(tmp_path):
    found = examine_actuator("cpu-governor", CpuGovernor(tmp_path))
    assert found.level == "no"
    assert "no frequency governor" in found.text
    assert found.remedy


class RackLimit(Actuator):
    kind = "rack limit"

    def read_state(self):
        return {"watts": 300.0}

    def write_state(self, state):
        raise AssertionError("written")

    def offer_settings(self, state):
        return [Setting("300 W", 300.0), Setting("200 W", 200.0)]

    def apply_setting(self, setting, state):
        raise AssertionError("applied")


def test_permission_of_an_actuator_of_another_package_is_unknown():
    found = examine_actuator("rack-limit", RackLimit())
    assert found.level == "limited"
    assert found.text.startswith("could set 200 W;")
    assert found.remedy == 'try it in a short training: throttle="rack-limit"'
