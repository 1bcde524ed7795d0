"""Parsers return an answer or raise a ServiceError for any input, and every answer can be planned with."""

import copy
import json
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_green.grid.live import Answer
from lightning_green.grid.live.snapshot import Snapshot
from lightning_green.grid.providers import (
    carbon_aware_sdk,
    electricity_maps,
    energi_data_service,
    energy_charts,
    file,
    http_json,
    neso,
    prometheus,
    watttime,
)
from lightning_green.grid.signal import SignalKind
from lightning_green.planning.job import Job
from lightning_green.planning.planner import plan
from lightning_green.utilities.http.answers import read_json
from lightning_green.utilities.http.errors import ServiceError
from tests.helpers import fake_grid, fake_services
from tests.helpers.any_json import any_json
from tests.helpers.live_signals import NOW

KIND = SignalKind()
FIELDS = http_json.Fields("now.g", "now.t", "next", "g", "t", "zone", 1.0)
SERVICES = fake_grid.FakeGrid(NOW)
SERVICES.horizon = timedelta(hours=6)
SERVICES.valid_token = "t"
BEARER = {"authorization": "Bearer t", "auth-token": fake_grid.TOKEN}


def body(route, path, **query):
    status, answer, _ = route(SERVICES, path, query, BEARER)
    assert status == 200
    return answer


AREA = {"filter": '{"PriceArea": ["DK1"]}', "limit": "400"}
# name -> (parser, valid body)
PARSERS = {
    "em latest": (electricity_maps.parse_latest, body(fake_services.electricity_maps, "/latest", zone="DE")),
    "em history": (electricity_maps.parse_history, body(fake_services.electricity_maps, "/history", zone="DE")),
    "em forecast": (electricity_maps.parse_forecast, body(fake_services.electricity_maps, "/forecast", zone="DE")),
    "watttime forecast": (watttime.parse_forecast, body(fake_services.watttime, "/v3/forecast", region="PSCO")),
    "watttime historical": (watttime.parse_historical, body(fake_services.watttime, "/v3/historical", region="PSCO")),
    "watttime region": (watttime.parse_region, {"region": "PSCO"}),
    "watttime login": (watttime.parse_login, {"token": "t"}),
    "neso forecast": (partial(neso.parse_forecast, region=13), body(fake_services.neso, "/x/fw48h/regionid/13")),
    "neso past": (neso.parse_past, body(fake_services.neso, "/intensity/a/b")),
    "energy-charts": (energy_charts.parse_co2eq, body(fake_services.energy_charts, "/co2eq", country="de")),
    "eds": (
        partial(energi_data_service.parse_records, area="DK1", quality="measured"),
        body(fake_services.energi_data_service, "/dataset/CO2Emis", **AREA),
    ),
    "sdk now": (
        partial(carbon_aware_sdk.parse_emissions, location="x"),
        body(fake_services.carbon_aware_sdk, "/emissions/bylocations", location="x"),
    ),
    "sdk forecast": (
        partial(carbon_aware_sdk.parse_forecast, location="x"),
        body(fake_services.carbon_aware_sdk, "/emissions/forecasts/current", location="x"),
    ),
    "json": (partial(http_json.parse_body, fields=FIELDS, now=NOW), body(fake_services.plain_json, "/co2")),
    "prometheus": (prometheus.parse_result, body(fake_services.prometheus, "/api/v1/query_range")),
}


def places(node, at=()):
    """Return the path of every element of a body; of lists, only of the first three rows."""
    found = [at]
    if isinstance(node, dict):
        for key in node:
            found += places(node[key], (*at, key))
    elif isinstance(node, list):
        for index in range(min(3, len(node))):
            found += places(node[index], (*at, index))
    return found


def planted(good, place, value):
    if not place:
        return value
    bad = copy.deepcopy(good)
    node = bad
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    return bad


def use(parse):
    """Parse, and use the answer as a run does."""
    try:
        answer = parse()
    except ServiceError as error:
        message = str(error)
    else:
        message = ""
    assert len(message.encode("utf-8")) < 300
    if message:
        return
    if not isinstance(answer, Answer):
        assert isinstance(answer, str)
        return
    snapshot = Snapshot(timedelta(hours=1)).merged([(answer, NOW)], NOW)
    for at in (NOW, NOW + timedelta(hours=5), NOW - timedelta(days=3)):
        reading = snapshot.reading(at, timedelta(hours=4), KIND, "fuzz", "DE")
        assert reading is None or 0 <= reading.value <= 200_000
    forecast = snapshot.forecast(NOW, timedelta(hours=24), timedelta(hours=4), "average/lifecycle")
    plan(Job(work_hours=3.0, deadline=NOW + timedelta(hours=24)), forecast, NOW)


some = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("name", PARSERS)
def test_valid_body_is_parsed(name):
    parse, good = PARSERS[name]
    assert parse(json.loads(json.dumps(good)))


@pytest.mark.parametrize("name", PARSERS)
@some
@given(data=st.data())
def test_body_with_one_unexpected_value(name, data):
    parse, good = PARSERS[name]
    place = data.draw(st.sampled_from(places(good)))
    bad = planted(good, place, data.draw(any_json))
    use(lambda: parse(bad))


@pytest.mark.parametrize("name", PARSERS)
@some
@given(bad=any_json)
def test_body_of_any_json(name, bad):
    use(lambda: PARSERS[name][0](bad))


@pytest.mark.parametrize("name", PARSERS)
@some
@given(data=st.data())
def test_body_with_changed_bytes(name, data):
    parse, good = PARSERS[name]
    raw = bytearray(json.dumps(good).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw)))
        raw[start : start + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=20))
    use(lambda: parse(read_json(bytes(raw))))


@some
@given(raw=st.binary(max_size=300))
def test_file_with_any_bytes(raw):
    good = b"datetime,carbon_intensity,quality,zone,kind\n2026-01-15T10:00Z,300,measured,DE,average/lifecycle\n"
    for content in (raw, good + raw, good[:40] + raw + good[40:]):
        use(lambda content=content: file.parse_rows(content, "DE", "average/lifecycle", NOW))
