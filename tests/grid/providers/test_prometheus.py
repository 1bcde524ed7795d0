"""Carbon intensity from Prometheus."""

from datetime import timedelta

import pytest

from lightning_green.grid.errors import NoDataError
from lightning_green.grid.providers.prometheus import PrometheusSignal, parse_result
from lightning_green.utilities.http.errors import UnreadableError
from tests.helpers.fake_grid import solar_day
from tests.helpers.live_signals import NOW

URL = "http://prometheus.example:9090"


def body(*series, kind="matrix"):
    return {"status": "success", "data": {"resultType": kind, "result": list(series)}}


def test_present_and_the_last_day_are_queried(grid, build):
    signal = build("prometheus")
    assert signal.refresh(NOW) == []
    (_, present, query, _), (_, past, span, _) = grid.requests
    assert (present, past) == ("/api/v1/query", "/api/v1/query_range")
    assert query == {"query": "grid_intensity"}
    assert span == {
        "query": "grid_intensity",
        "start": f"{(NOW - timedelta(days=1)).timestamp():.0f}",
        "end": f"{NOW.timestamp():.0f}",
        "step": "300",
    }
    assert signal.intensity(NOW).value == pytest.approx(solar_day(NOW))
    assert signal.intensity(NOW - timedelta(hours=20)).value == pytest.approx(solar_day(NOW - timedelta(hours=20)))


def test_samples_are_multiplied_by_the_factor():
    at = NOW.timestamp()
    assert parse_result(body({"value": [at, "0.3"]}, kind="vector"), 1000.0).past[0].value == pytest.approx(300.0)
    assert parse_result(body({"values": [[at, "1"], [at + 60, "2"]]}), 100.0).past[1].value == 200.0


def test_samples_that_are_not_a_number_are_skipped():
    at = NOW.timestamp()
    samples = [[at, "NaN"], [at + 60, "+Inf"], [at + 120, "x"], [at + 180], [at + 240, "5"]]
    assert [point.value for point in parse_result(body({"values": samples})).past] == [5.0]


def test_query_must_return_exactly_one_series():
    sample = {"value": [NOW.timestamp(), "300"]}
    with pytest.raises(UnreadableError, match="returns 2 series; it should return one"):
        parse_result(body(sample, sample))
    with pytest.raises(NoDataError):
        parse_result(body())
    with pytest.raises(UnreadableError, match="does not report success"):
        parse_result({"status": "error"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": " "}, "`query` should be a PromQL expression"),
        ({"factor": -1.0}, "`factor` should be above 0"),
        ({"resolution": "1s"}, "`resolution` should be ten seconds or more"),
        ({"url": "prometheus:9090"}, "`url` should start with http"),
    ],
)
def test_invalid_argument_raises(arguments, message):
    with pytest.raises(ValueError, match=message):
        PrometheusSignal(**{"url": URL, "query": "grid_intensity", **arguments})
