"""The HTTP meter with a local server."""

import pytest

from lightning_green.energy.http_json import HttpJsonMeter


def test_counter_bridges_failed_request_and_token_is_not_exposed(server, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_METER_TOKEN", "s3cret")
    server.answer = (200, {"data": [{"kwh": "1.5"}]})
    meter = HttpJsonMeter(server.url, "data.0.kwh", unit="kWh", every="60s")
    meter.start()
    server.answer = (503, {})
    meter.sample()
    assert "does not respond" in meter.problem
    server.answer = (200, {"data": [{"kwh": 1.75}]})
    meter.close()
    assert meter.read() == {"other": (0.25 * 3.6e6, "measured")}
    assert {authorization for _, authorization in server.seen} == {"Bearer s3cret"}
    assert "s3cret" not in str(meter.problem) + repr(meter.__dict__)


@pytest.mark.parametrize("body", [{}, {"power": None}, {"power": True}, {"power": "x"}, {"power": -1}, [], 3])
def test_response_without_number_adds_no_energy(server, body):
    server.answer = (200, body)
    meter = HttpJsonMeter(server.url, "power", every="60s")
    meter.start()
    meter.close()
    assert meter.read() == {"other": (0.0, "modelled")}
    assert "without a number" in meter.problem


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"url": "ftp://x"}, "url"),
        ({"url": "http://a:b@x"}, "url"),
        ({"unit": "BTU"}, "unit"),
        ({"component": "fan"}, "component"),
        ({"value": ""}, "value"),
        ({"every": "0s"}, "every"),
    ],
)
def test_invalid_argument_raises(arguments, named):
    with pytest.raises(ValueError, match=f"`{named}` should"):
        HttpJsonMeter(**{"url": "http://x", "value": "power", **arguments})
