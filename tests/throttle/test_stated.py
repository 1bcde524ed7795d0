"""Levels that the user states: how they are read, and which setting of a device stands for them."""

import logging

import pytest

from lightning_green.planning import Level
from lightning_green.throttle.actuators.cgroup_cpu_max import CgroupCpuMax
from lightning_green.throttle.actuators.cpu_governor import CpuGovernor
from lightning_green.throttle.actuators.duty_cycle import DutyCycle
from lightning_green.throttle.actuators.nvml_locked_clocks import NvmlLockedClocks
from lightning_green.throttle.actuators.nvml_power_limit import NvmlPowerLimit
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
from lightning_green.throttle.controller import ThrottleControl
from lightning_green.throttle.request import parse_throttle
from tests.energy.fake_nvml import Card, FakeDriver
from tests.throttle.trees import limits, packages

FULL = Level(1.0, 1.0)


@pytest.fixture
def driver(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return FakeDriver([Card("GPU-aa", limit=500_000), Card("GPU-bb", limit=650_000)]).install(monkeypatch)


def started(tmp_path, throttle, on_gpu=False, modelled=False):
    control = ThrottleControl(throttle)
    control.start(tmp_path, None, "model", on_gpu, modelled)
    return control


@pytest.mark.parametrize(
    ("given", "levels"),
    [
        ("0.78:0.90", [Level(0.78, 0.9)]),
        (Level(0.78, 0.9), [Level(0.78, 0.9)]),
        (["0.78:0.90", "0.6:0.7", "0.78:0.9"], [Level(0.78, 0.9), Level(0.6, 0.7)]),
    ],
)
def test_reading(given, levels):
    request = parse_throttle(given)
    assert (list(request.levels), request.actuators, request.auto) == (levels, (), True)


@pytest.mark.parametrize("given", ["0.78", "0.78:0.9:1", "1:1", "1.0:0.9", "0:0.5", "-0.5:0.5", "fast", ["auto"], ""])
def test_levels_that_are_none(given):
    with pytest.raises(ValueError, match="`throttle` should"):
        parse_throttle(given)


@pytest.mark.parametrize("given", [5.0, [], [3], {"0.78": 0.9}])
def test_what_is_no_throttle(given):
    with pytest.raises(TypeError, match="`throttle` should be None"):
        parse_throttle(given)


def test_auto_sets_the_limit_of_the_cards(driver, tmp_path):
    control = started(tmp_path, ["0.78:0.90", "0.6:0.7"], on_gpu=True)
    assert control.levels() == (FULL, Level(0.78, 0.9), Level(0.6, 0.7))  # whatever `max_slowdown` says
    assert control.choose(Level(0.78, 0.9)) == Level(0.78, 0.9)
    assert [card.limit for card in driver.cards] == [390_000, 390_000]
    assert control.choose() == Level(0.6, 0.7)  # the least energy per step
    assert [card.limit for card in driver.cards] == [300_000, 300_000]
    assert control.choose(FULL) == FULL
    assert [card.limit for card in driver.cards] == [500_000, 650_000]


def test_a_level_that_a_card_does_not_take_is_not_offered_and_said_once(driver, tmp_path, caplog):
    driver.cards[0].limits = (350_000, 700_000)
    with caplog.at_level(logging.WARNING):
        control = started(tmp_path, ["0.78:0.90", "0.6:0.7"], on_gpu=True)
    assert control.levels() == (FULL, Level(0.78, 0.9))
    (record,) = caplog.records
    assert "no device lets this process set 0.6:0.7" in record.getMessage()


def test_without_a_device_no_level_is_offered(tmp_path, monkeypatch, caplog):
    FakeDriver([]).install(monkeypatch)
    monkeypatch.setenv("ZEUSD_SOCK_PATH", str(tmp_path / "none.sock"))
    with caplog.at_level(logging.WARNING):
        control = started(tmp_path, "0.78:0.90", on_gpu=True)
    assert control.levels() == (FULL,)
    assert not control.can_set
    assert control.choose(Level(0.78, 0.9)) == FULL
    assert len(caplog.records) == 1
    assert started(tmp_path, "0.78:0.90", modelled=True).levels() == (FULL, Level(0.78, 0.9))


def test_each_actuator_takes_its_own_fraction(driver, tmp_path):
    level = Level(0.78, 0.9)
    clocks = started(tmp_path, [NvmlLockedClocks(), level])
    clocks.choose(level)
    assert {card.locked for card in driver.cards} == {(0, 1785)}  # the supported clock next to 0.9 of 1980 MHz
    clocks.restore()
    folder = packages(tmp_path / "powercap")
    rapl = started(tmp_path, [RaplPowerLimit(powercap=folder), level])
    rapl.choose(level)
    assert limits(folder) == [117.0, 117.0]
    rapl.restore()
    assert limits(folder) == [200.0, 150.0]
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    group = started(tmp_path, [CgroupCpuMax(group=tmp_path), level])
    group.choose(level)
    assert (tmp_path / "cpu.max").read_text() == "360000 100000\n"
    duty = DutyCycle()
    started(tmp_path, [duty, level]).choose(level)
    assert duty._fraction == 0.9


def test_a_setting_that_was_asked_for_has_to_be_near_the_level(driver, tmp_path):
    assert started(tmp_path, [NvmlPowerLimit([300]), "0.6:0.8"]).levels() == (FULL, Level(0.6, 0.8))
    assert started(tmp_path, [NvmlPowerLimit([300]), "0.7:0.9"]).levels() == (FULL,)
    assert CpuGovernor(tmp_path).setting_for(Level(0.7, 0.9)) is None
