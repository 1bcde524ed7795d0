"""Parsing of the ``throttle=`` and ``max_slowdown=`` arguments."""

import pytest

from lightning_green.planning import Level
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
from lightning_green.throttle.controller import ThrottleController
from lightning_green.throttle.request import parse_throttle


@pytest.mark.parametrize(
    ("given", "levels"),
    [
        ("0.78:0.90", [Level(0.78, 0.9)]),
        (Level(0.78, 0.9), [Level(0.78, 0.9)]),
        (["0.78:0.90", "0.6:0.7", "0.78:0.9"], [Level(0.78, 0.9), Level(0.6, 0.7)]),
    ],
)
def test_stated_levels(given, levels):
    request = parse_throttle(given)
    assert (list(request.levels), request.actuators, request.auto) == (levels, (), True)


@pytest.mark.parametrize("given", ["0.78", "0.78:0.9:1", "1:1", "1.0:0.9", "0:0.5", "-0.5:0.5", "fast", ["auto"], ""])
def test_invalid_level_raises(given):
    with pytest.raises(ValueError, match="`throttle` should"):
        parse_throttle(given)


@pytest.mark.parametrize("given", [5.0, [], [3], {"0.78": 0.9}])
def test_unsupported_type_raises(given):
    with pytest.raises(TypeError, match="`throttle` should be None"):
        parse_throttle(given)


def test_registered_names_and_levels():
    request = parse_throttle(["rapl-power-limit", "0.78:0.90"])
    (actuator,) = request.actuators
    assert isinstance(actuator, RaplPowerLimit)
    assert (list(request.levels), request.auto) == ([Level(0.78, 0.9)], False)


@pytest.mark.parametrize("throttle", [[], [3], 5.0])
def test_controller_rejects_unsupported_type(throttle):
    with pytest.raises(TypeError):
        ThrottleController(throttle)


@pytest.mark.parametrize("slowdown", [0.9, True, "2", float("nan")])
def test_invalid_max_slowdown_raises(slowdown):
    with pytest.raises(ValueError, match="`max_slowdown` should"):
        ThrottleController(RaplPowerLimit(), slowdown)
