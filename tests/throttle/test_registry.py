"""Actuators by name, and actuators of other packages."""

import logging
import sys

import pytest

from lightning_green.planning import Level
from lightning_green.throttle import restore_left_over
from lightning_green.throttle.controller import ThrottleController
from lightning_green.throttle.registry import ACTUATORS, actuator_class, registered_name
from lightning_green.throttle.request import parse_throttle
from tests.helpers.distributions import installed_distribution
from tests.helpers.fake_nvml import FakeDriver

KINDS_OF_OLDER_JOURNALS = [
    "NVML power limit", "NVML locked clocks", "zeusd power limit", "zeusd locked clocks", "RAPL power limit",
    "CPU governor",
]  # fmt: skip

RACK = '''
from pathlib import Path
from lightning_green.throttle import Actuator
from lightning_green.throttle.settings import power_settings


class RackLimit(Actuator):
    """Sets a limit in a file."""

    kind = "rack limit"
    auto_device = "gpu"
    scale = "power"
    path = Path(FOLDER) / "limit"

    def read_state(self):
        return {"watts": float(self.path.read_text())}

    def write_state(self, state):
        self.path.write_text(str(state["watts"]))

    def offer_settings(self, state):
        return power_settings(state["watts"], 50.0, None, self.fractions)

    def apply_setting(self, setting, state):
        self.path.write_text(str(setting.value))


def not_an_actuator():
    pass
'''


@pytest.mark.parametrize("kind", KINDS_OF_OLDER_JOURNALS)
def test_kind_in_journal_names_registered_actuator(kind):
    assert actuator_class(registered_name(kind)).kind == kind


def test_registered_name_is_derived_from_kind():
    assert {registered_name(actuator_class(name).kind) for name in ACTUATORS} == set(ACTUATORS)


@pytest.fixture
def limit(tmp_path, monkeypatch):
    """Install an actuator of another package; return the file that it sets."""
    FakeDriver([]).install(monkeypatch)
    monkeypatch.setenv("ZEUSD_SOCK_PATH", str(tmp_path / "none.sock"))
    (tmp_path / "limit").write_text("200.0")
    points = {"broken": "rack_limit:not_an_actuator", "rack-limit": "rack_limit:RackLimit"}
    module = f"FOLDER = {str(tmp_path)!r}\n{RACK}"
    monkeypatch.delitem(sys.modules, "rack_limit", raising=False)
    with installed_distribution(tmp_path / "site", monkeypatch, ACTUATORS, points, {"rack_limit": module}):
        yield tmp_path / "limit"


def test_entry_point_adds_actuator_by_name(limit):
    (actuator,) = parse_throttle("Rack-Limit").actuators
    assert actuator.set(actuator.levels()[2])
    assert limit.read_text() == "160.0"
    actuator.restore()
    assert limit.read_text() == "200.0"


def test_auto_selects_actuator_of_another_package(limit, tmp_path, caplog):
    controller = ThrottleController(["0.75:0.9"])
    with caplog.at_level(logging.WARNING):
        controller.start(tmp_path, None, "model", on_gpu=True)
    assert "The actuator 'broken' is skipped" in caplog.records[0].getMessage()
    assert controller.choose(Level(0.75, 0.9)) == Level(0.75, 0.9)
    assert limit.read_text() == "150.0"
    controller.restore()
    assert limit.read_text() == "200.0"


def test_journal_restores_actuator_of_another_package(limit, tmp_path):
    (actuator,) = parse_throttle("rack-limit").actuators
    actuator.bind(tmp_path)
    actuator.set(actuator.levels()[1])
    (file,) = tmp_path.glob("throttle.*.json")
    file.write_text(file.read_text().replace('"started": "', '"started": "0'))  # as if the process had ended
    assert limit.read_text() == "180.0"
    (message,) = restore_left_over(tmp_path)
    assert message == "rack limit was still throttled after its process had ended; its original state is restored."
    assert limit.read_text() == "200.0"


def test_entry_point_that_is_not_an_actuator_raises(limit):
    with pytest.raises(TypeError, match=r"'broken' should be a subclass of lightning_green\.throttle\.Actuator"):
        parse_throttle("broken")
