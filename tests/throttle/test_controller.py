"""The controller with fake devices: selection of levels, profiling, and several nodes."""

import logging

import pytest

from lightning_green.energy.meter import Energy, Meter
from lightning_green.planning import Level
from lightning_green.throttle.actuators.nvml_locked_clocks import NvmlLockedClocks
from lightning_green.throttle.actuators.nvml_power_limit import NvmlPowerLimit
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
from lightning_green.throttle.controller import ThrottleController, ThrottleState
from tests.helpers.fake_nvml import Card, FakeDriver
from tests.helpers.powercap import limits, packages

FULL = Level(1.0, 1.0)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path / "cache"))


def started(tmp_path, throttle, on_gpu=False, simulated=False):
    controller = ThrottleController(throttle)
    controller.start(tmp_path, None, "model", on_gpu, simulated)
    return controller


class Counting(Meter):
    name = "counting"

    def __init__(self, quality="measured"):
        self.joules, self.quality = 0.0, quality

    def start(self):
        pass

    def read(self):
        return {"cpu": Energy(self.joules, self.quality)}

    def close(self):
        pass


def drive(controller, meter, folder, steps):
    for _ in range(steps):
        watts = limits(folder)[1]
        seconds = 0.1 if watts == 150.0 else 0.11
        meter.joules += seconds * watts
        controller.on_step(seconds)


def test_profiles_chooses_restores_and_caches(tmp_path):
    folder, meter = packages(tmp_path / "powercap"), Counting()
    controller = ThrottleController(RaplPowerLimit([100], powercap=folder), max_slowdown=1.2)
    controller.start(tmp_path, meter, "model", on_gpu=False)
    controller.begin_profiling(36_000)
    assert controller.state is ThrottleState.PROFILING
    drive(controller, meter, folder, 3000)
    assert controller.state is ThrottleState.DONE
    full, low = controller.levels()
    assert (low.power, low.speed) == (pytest.approx(100 / 150), pytest.approx(0.1 / 0.11))
    assert controller.choose() == low
    assert limits(folder) == [100.0, 100.0]
    assert controller.choose(full) == full
    assert limits(folder) == [200.0, 150.0]
    controller.choose(low)
    controller.restore()
    assert limits(folder) == [200.0, 150.0]

    again = ThrottleController(RaplPowerLimit([100], powercap=folder), max_slowdown=1.05)
    again.start(tmp_path, meter, "model", on_gpu=False)
    again.begin_profiling(36_000)
    assert again.state is ThrottleState.DONE
    assert again.levels() == (Level(1.0, 1.0),)  # 10 % slower exceeds max_slowdown
    assert again.choose() == Level(1.0, 1.0)
    other = ThrottleController(RaplPowerLimit([100], powercap=folder))
    other.start(tmp_path, meter, "another model", on_gpu=False)
    other.begin_profiling(36_000)
    assert other.state is ThrottleState.PROFILING


def test_modeled_power_offers_no_level(tmp_path):
    folder, meter = packages(tmp_path / "powercap"), Counting("modelled")
    controller = ThrottleController([RaplPowerLimit([100], powercap=folder)])
    controller.start(tmp_path, meter, "model", on_gpu=False)
    controller.begin_profiling(36_000)
    drive(controller, meter, folder, 3000)
    assert controller.levels() == (Level(1.0, 1.0),)
    assert "could not be measured" in controller.why_not
    assert limits(folder) == [200.0, 150.0]


def test_level_that_could_not_be_set_is_neither_offered_nor_cached(driver, tmp_path):
    meter = Counting()
    controller = ThrottleController(NvmlPowerLimit([300]))
    controller.start(tmp_path, meter, "model", on_gpu=True)
    controller.begin_profiling(36_000)
    driver.cards[1].limits = (600_000, 700_000)
    for _ in range(3000):
        meter.joules += 50.0 if controller.profile.measuring in (None, "full") else 40.0  # a chance, not the level
        controller.on_step(0.1)
    assert controller.state is ThrottleState.DONE
    assert controller.levels() == (FULL,)
    assert controller.choose() == FULL
    assert [card.limit for card in driver.cards] == [500_000, 650_000]
    driver.cards[1].limits = (200_000, 700_000)
    again = ThrottleController(NvmlPowerLimit([300]))
    again.start(tmp_path, meter, "model", on_gpu=True)
    again.begin_profiling(36_000)
    assert again.state is ThrottleState.PROFILING


def test_cache_separates_gpu_models(driver, tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path / "cache"))
    names = set()
    for model in ("NVIDIA H100 80GB HBM3", "NVIDIA L40S", "NVIDIA L40S"):
        for card in driver.cards:
            card.model = model
        controller = ThrottleController(NvmlPowerLimit())
        controller.start(None, None, "model", on_gpu=True)
        controller.begin_profiling(36_000)
        names.add(controller.cache.path.name)
    assert len(names) == 2


def test_auto_sets_power_limit_of_gpus(driver, tmp_path):
    controller = started(tmp_path, ["0.78:0.90", "0.6:0.7"], on_gpu=True)
    assert controller.levels() == (FULL, Level(0.78, 0.9), Level(0.6, 0.7))  # regardless of `max_slowdown`
    assert controller.choose(Level(0.78, 0.9)) == Level(0.78, 0.9)
    assert [card.limit for card in driver.cards] == [390_000, 390_000]
    assert controller.choose() == Level(0.6, 0.7)  # the least energy per step
    assert [card.limit for card in driver.cards] == [300_000, 300_000]
    assert controller.choose(FULL) == FULL
    assert [card.limit for card in driver.cards] == [500_000, 650_000]


def test_level_that_gpu_does_not_accept_is_not_offered_with_one_warning(driver, tmp_path, caplog):
    driver.cards[0].limits = (350_000, 700_000)
    with caplog.at_level(logging.WARNING):
        controller = started(tmp_path, ["0.78:0.90", "0.6:0.7"], on_gpu=True)
    assert controller.levels() == (FULL, Level(0.78, 0.9))
    (record,) = caplog.records
    assert "no device can be set to 0.6:0.7" in record.getMessage()


def test_no_level_is_offered_without_device(tmp_path, monkeypatch, caplog):
    FakeDriver([]).install(monkeypatch)
    monkeypatch.setenv("ZEUSD_SOCK_PATH", str(tmp_path / "none.sock"))
    with caplog.at_level(logging.WARNING):
        controller = started(tmp_path, "0.78:0.90", on_gpu=True)
    assert controller.levels() == (FULL,)
    assert controller.state is ThrottleState.UNAVAILABLE
    assert controller.choose(Level(0.78, 0.9)) == FULL
    assert len(caplog.records) == 1
    assert started(tmp_path, "0.78:0.90", simulated=True).levels() == (FULL, Level(0.78, 0.9))


def test_power_limit_uses_power_and_clocks_use_speed(driver, tmp_path):
    level = Level(0.78, 0.9)
    clocks = started(tmp_path, [NvmlLockedClocks(), level])
    clocks.choose(level)
    assert {card.locked for card in driver.cards} == {(0, 1785)}  # the supported clock nearest to 0.9 of 1980 MHz
    clocks.restore()
    folder = packages(tmp_path / "powercap")
    rapl = started(tmp_path, [RaplPowerLimit(powercap=folder), level])
    rapl.choose(level)
    assert limits(folder) == [117.0, 117.0]
    rapl.restore()
    assert limits(folder) == [200.0, 150.0]


def test_requested_setting_must_be_near_stated_level(driver, tmp_path):
    assert started(tmp_path, [NvmlPowerLimit([300]), "0.6:0.8"]).levels() == (FULL, Level(0.6, 0.8))
    assert started(tmp_path, [NvmlPowerLimit([300]), "0.7:0.9"]).levels() == (FULL,)


@pytest.mark.parametrize("throttle", ["auto", "0.6:0.8", "ours"])
@pytest.mark.parametrize("gpus", [["1"], ["GPU-bb"]])
def test_only_gpus_of_job_are_set(tmp_path, monkeypatch, throttle, gpus):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cards = [Card("GPU-aa", limit=500_000), Card("GPU-bb", limit=500_000), Card("GPU-cc", limit=500_000)]
    driver = FakeDriver(cards).install(monkeypatch)
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path))
    controller = ThrottleController([NvmlPowerLimit([300]), "0.6:0.8"] if throttle == "ours" else throttle)
    controller.start(tmp_path, None, "model", on_gpu=True, gpus=gpus)
    name = "0.6:0.8" if controller.request.levels else "300 W"
    controller.set_level_number(1 + controller.names.index(name))
    assert [card.limit for card in driver.cards] == [500_000, 300_000, 500_000]
    controller.restore()
    assert [card.limit for card in driver.cards] == [500_000] * 3


def started_node(folder, run, node):
    controller = ThrottleController([RaplPowerLimit(powercap=folder), "0.75:0.9", "0.5:0.7"])
    controller.start(run, None, "model", on_gpu=False, node=node)
    return controller


def test_level_that_one_node_cannot_set_is_not_offered(tmp_path, caplog):
    trees = [packages(tmp_path / node, watts=(200,)) for node in "01"]
    first, second = (started_node(folder, tmp_path, node) for folder, node in zip(trees, "01", strict=True))
    assert first.names == second.names == ["0.75:0.9", "0.5:0.7"]
    first.restrict(second.names)
    assert caplog.records == []
    with caplog.at_level(logging.WARNING):
        for controller in (first, second):
            controller.restrict(["0.5:0.7"])
    assert "another node cannot set 0.75:0.9" in caplog.records[0].getMessage()
    assert first.levels() == (FULL, Level(0.5, 0.7))
    assert first.choose(Level(0.5, 0.7)) == Level(0.5, 0.7)
    assert first.level_number == 1
    assert second.set_level_number(first.level_number)
    assert [limits(folder) for folder in trees] == [[100.0], [100.0]]
    assert len(list(tmp_path.glob("throttle.*.json"))) == 2  # nodes with the same host name have separate journals
    first.restore()
    assert first.level_number == 0
    assert second.set_level_number(0)
    assert [limits(folder) for folder in trees] == [[200.0], [200.0]]
    assert list(tmp_path.glob("throttle.*.json")) == []
    first.restrict([])
    assert first.state is ThrottleState.UNAVAILABLE


@pytest.mark.parametrize("stated", [[], ["0.8:0.9"]])
def test_actuator_object_sets_the_gpus_of_each_fit(driver, tmp_path, stated):
    given = NvmlPowerLimit()
    for gpu, limit in (("GPU-aa", 500_000), ("GPU-bb", 650_000)):
        controller = ThrottleController([given, *stated])
        controller.start(tmp_path, None, "model", on_gpu=True, gpus=[gpu])
        assert controller.set_level_number(1 if stated else 2)  # 80 % of the limit
        assert [card.limit for card in driver.cards if card.uuid == gpu] == [limit * 8 // 10]
        controller.restore()
        assert [card.limit for card in driver.cards] == [500_000, 650_000]


def test_actuator_object_has_the_levels_and_the_limit_of_each_fit(tmp_path):
    folder = packages(tmp_path / "powercap", watts=(100,))
    given, offered = RaplPowerLimit(powercap=folder), []
    for levels, watts in ((["0.8:0.9"], 100), (["0.6:0.7"], 100), ([], 60)):
        (folder / "intel-rapl:0" / "constraint_0_power_limit_uw").write_text(f"{watts * 1_000_000}\n")
        ThrottleController([given, *levels]).start(tmp_path, None, "model", on_gpu=False)
        offered.append([setting.value for setting in given.levels()])
    assert offered == [[100.0, 80.0], [100.0, 60.0], [60.0, 54.0, 48.0, 42.0, 36.0, 30.0]]


def test_actuator_object_keeps_the_gpus_that_the_user_names(driver, tmp_path):
    given = NvmlPowerLimit(gpu_ids=["GPU-bb"])
    ThrottleController(given).start(tmp_path, None, "model", on_gpu=True, gpus=["GPU-aa"])
    assert given.gpu_ids == ["GPU-bb"]
