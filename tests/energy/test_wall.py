"""Readings of an external meter, without its service."""

import math
from types import SimpleNamespace

import pytest

from lightning_green.energy.wall import TOKEN_VARIABLE, WallMeter
from lightning_green.utilities.http.errors import ServiceError


class Readings(WallMeter):
    """Returns or raises ``reading`` instead of sending a request."""

    name = "test"
    reading = None

    def _fetch(self, transport, headers):
        self.headers = headers
        if isinstance(self.reading, Exception):
            raise self.reading
        return self.reading


@pytest.fixture
def now(monkeypatch):
    """Return a list whose element is the monotonic time."""
    at = [0.0]
    monkeypatch.setattr("lightning_green.energy.wall.time", SimpleNamespace(monotonic=lambda: at[0]))
    return at


@pytest.fixture
def meter(now):
    """Return a function that starts a meter; all meters are closed after the test."""
    started = []

    def start(reading, **given):
        meter = Readings("http://pdu", **{"every": "10s", **given})
        meter.reading = reading
        meter.start()
        started.append(meter)
        return meter

    yield start
    for one in started:
        one.close()


def sample(meter, now, at, reading):
    now[0], meter.reading = at, reading
    meter.sample()
    return meter.read()[meter.component]


@pytest.mark.parametrize(
    ("unit", "readings", "joules"),
    [
        ("W", (100.0, 300.0), 2000.0),
        ("kW", (0.1, 0.3), 2000.0),
        ("J", (50.0, 2050.0), 2000.0),
        ("Wh", (1.0, 2.0), 3600.0),
        ("kWh", (1.0, 1.001), 3600.0),
    ],
)
def test_power_is_integrated_and_energy_is_the_difference(meter, now, unit, readings, joules):
    started = meter(readings[0], unit=unit, component="gpu")
    assert sample(started, now, 10.0, readings[1]) == (pytest.approx(joules), "measured")


def test_counter_includes_the_energy_of_a_gap(meter, now):
    started = meter(0.0, unit="J")
    assert sample(started, now, 10.0, ServiceError("503")).joules == 0.0
    assert "does not respond: 503. Its energy keeps the last value." in started.problem
    assert sample(started, now, 500.0, 49_000.0) == (49_000.0, "measured")


def test_power_over_a_long_gap_is_modeled(meter, now):
    started = meter(100.0)
    assert sample(started, now, 30.0, 100.0) == (3000.0, "measured")
    assert sample(started, now, 60.1, 100.0) == (pytest.approx(6010.0), "modelled")
    assert "The energy of the gap is estimated" in started.problem


def test_counter_that_was_reset_is_modeled(meter, now):
    started = meter(5000.0, unit="J")
    sample(started, now, 10.0, 6000.0)
    assert sample(started, now, 20.0, 3.0) == (2000.0, "modelled")


@pytest.mark.parametrize("reading", [None, math.nan, math.inf, -1.0])
def test_reading_that_is_no_power_adds_no_energy(meter, now, reading):
    started = meter(100.0)
    assert sample(started, now, 10.0, reading).joules == 0.0
    assert started.problem == "The test meter responded without a number in W. Its energy keeps the last value."


def test_energy_before_the_first_response_is_unknown(meter, now):
    started = meter(ServiceError("no route"), unit="J")
    assert sample(started, now, 10.0, 900.0) == (0.0, "modelled")
    assert sample(started, now, 20.0, 1000.0) == (100.0, "modelled")


def test_token_is_sent_as_bearer_and_read_at_each_request(meter, now, monkeypatch, tmp_path):
    assert meter(1.0).headers == {}
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    started = meter(1.0)
    assert started.headers == {"Authorization": "Bearer s3cret"}
    monkeypatch.setenv(TOKEN_VARIABLE, "renewed")
    sample(started, now, 10.0, 1.0)
    assert started.headers == {"Authorization": "Bearer renewed"}
    (tmp_path / "token").write_text("of a file\n")
    (tmp_path / "token").chmod(0o600)
    assert meter(1.0, token_file=str(tmp_path / "token")).headers == {"Authorization": "Bearer of a file"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"unit": "BTU"}, "unit"), ({"component": "fan"}, "component"), ({"url": "ftp://x"}, "url")],
)
def test_invalid_argument_raises(arguments, named):
    with pytest.raises(ValueError, match=f"`{named}` should"):
        Readings(**{"url": "http://pdu", **arguments})
