"""Signals of an HTTP service: queries, zones and the cache."""

from datetime import timedelta

import pytest

from lightning_green.grid.live import (
    Answer,
    LiveSignal,
    Query,
    collect_points,
    parse_object,
    parse_time,
    parse_value,
    require_points,
)
from lightning_green.grid.live.polling import LONGEST_WAIT, SHORTEST_WAIT
from lightning_green.grid.signal import SignalKind
from lightning_green.utilities.http.errors import RefusedError
from tests.helpers.fake_grid import solar_day
from tests.helpers.live_signals import FAST, NOW

HOUR = timedelta(hours=1)


def parse(body):
    now = parse_object(parse_object(body).get("now"))
    points = collect_points([(parse_time(now.get("t")), parse_value(now.get("g")), "measured")])
    return require_points(Answer(past=points, zone=body.get("zone")))


class UtilitySignal(LiveSignal):
    """A signal as another package writes it."""

    def __init__(self, zone, url):
        super().__init__("my-utility", zone, SignalKind(), HOUR, {"zone": zone, "url": url})
        self.fetcher.limits = FAST
        self.url, self.error = url, None

    def queries(self, now):
        if self.error is not None:
            raise self.error
        return [Query("now", self.url, HOUR, parse)]


@pytest.fixture
def make(grid):
    return lambda zone="DE": UtilitySignal(zone, grid.url("json") + "/co2")


def test_subclass_needs_only_queries(make):
    signal = make()
    assert signal.refresh(NOW) == []
    assert signal.intensity(NOW).value == pytest.approx(solar_day(NOW))
    assert signal.describe() == "my-utility, average/lifecycle, zone DE"


def test_answer_about_another_zone_is_not_used(grid, make):
    grid.faults = {"json": "wrong_zone"}
    signal = make()
    assert signal.refresh(NOW) == ["my-utility was asked for zone DE and answers for FR"]
    assert signal.intensity(NOW) is None


@pytest.mark.parametrize("zone", ["de", None])
def test_zone_is_compared_without_case_and_only_if_given(make, zone):
    signal = make(zone)
    assert signal.refresh(NOW) == []
    assert signal.intensity(NOW) is not None


def test_cached_answer_is_loaded_without_a_request(grid, make):
    make().refresh(NOW)
    sent = len(grid.requests)
    signal = make()
    assert signal.load_cache(NOW + HOUR) is True
    assert signal.intensity(NOW + HOUR).value == pytest.approx(solar_day(NOW))
    assert make().load_cache(NOW + 5 * HOUR) is False, "the value is older than `max_age`"
    assert len(grid.requests) == sent


def test_queries_that_cannot_be_known_are_a_failure_and_retried_late(grid, make):
    signal = make()
    signal.error = RefusedError("the region is unknown")
    assert signal.load_cache(NOW) is False
    assert signal.refresh(NOW) == ["the region is unknown"]
    assert signal.problem == "the region is unknown"
    assert signal.seconds_to_next_fetch(NOW) == LONGEST_WAIT
    assert grid.requests == []


def test_time_to_the_next_request_is_limited(make):
    signal = make()
    assert signal.seconds_to_next_fetch(NOW) == SHORTEST_WAIT, "nothing was requested yet"
    signal.refresh(NOW)
    assert signal.seconds_to_next_fetch(NOW) == LONGEST_WAIT
    assert SHORTEST_WAIT < signal.seconds_to_next_fetch(NOW + timedelta(minutes=35)) < LONGEST_WAIT
    assert signal.seconds_to_next_fetch(NOW + HOUR) == SHORTEST_WAIT
