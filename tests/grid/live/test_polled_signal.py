"""Signals that poll a source: refreshing, answering from memory, and copies."""

import pickle
from datetime import timedelta

import pytest

import lightning_green.grid.providers.energy_charts as energy_charts
from lightning_green.grid.errors import NoDataError
from lightning_green.grid.live import Answer, Failure, FetchResult, Point, PolledSignal, polled_signal
from lightning_green.grid.signal import SignalKind
from lightning_green.utilities.http.transport import Limits
from tests.helpers.live_signals import NOW

HOUR = timedelta(hours=1)
HOUR_OF_NOW = NOW.replace(minute=0)


class MeterSignal(PolledSignal):
    """A signal whose source is a list of results, one for each round."""

    def __init__(self, max_age="4h"):
        super().__init__("meter", "DE", SignalKind(), HOUR, {"max_age": max_age}, max_age)
        self.results, self.rounds = [], []

    def fetch(self, now, *, force=False):
        self.rounds.append((now, force))
        return self.results.pop(0)

    def seconds_to_next_fetch(self, now):
        return 60.0


def measured(hour, value):
    return FetchResult(answers=((Answer(past=(Point(hour, value),)), hour),))


def test_answers_are_added_to_the_known_values():
    signal = MeterSignal()
    signal.results = [measured(HOUR_OF_NOW - HOUR, 100.0), measured(HOUR_OF_NOW, 200.0)]
    assert signal.refresh(NOW) == signal.refresh(NOW, force=True) == []
    assert signal.rounds == [(NOW, False), (NOW, True)]
    assert signal.intensity(NOW - HOUR).value == 100.0
    reading = signal.intensity(NOW)
    assert (reading.value, reading.source, reading.zone, reading.kind) == (200.0, "meter", "DE", SignalKind())
    assert signal.resolution() == HOUR


def test_failure_is_returned_and_reported_with_the_value_in_use():
    signal = MeterSignal()
    failed = FetchResult(failures=(Failure("now", NoDataError("the meter is off")),))
    signal.results = [measured(HOUR_OF_NOW, 200.0), failed, FetchResult()]
    signal.refresh(NOW)
    assert signal.refresh(NOW + 3 * HOUR) == ["the meter is off"]
    assert signal.problem == "the meter is off"
    assert signal.pop_messages() == ["meter: the meter is off; the last value (3 h 20 min old) is used."]
    assert signal.refresh(NOW) == []
    assert signal.problem is None


@pytest.mark.parametrize(("max_age", "is_known"), [("4h", True), ("2h", False)])
def test_value_older_than_the_maximum_age_is_not_used(max_age, is_known):
    signal = MeterSignal(max_age)
    signal.results = [measured(HOUR_OF_NOW, 200.0)]
    signal.refresh(NOW)
    assert (signal.intensity(NOW + 3 * HOUR) is not None) == is_known
    assert signal.load_cache(NOW + 3 * HOUR) == is_known


def test_clock_of_the_machine_is_replaced():
    signal = MeterSignal()
    signal.results = [FetchResult()]
    signal.bind_clock(lambda: NOW)
    signal.refresh()
    assert signal.rounds == [(NOW, False)]


def test_interrupted_round_reports_no_recovery_and_keeps_its_answers():
    signal = MeterSignal()
    failed = FetchResult(failures=(Failure("now", NoDataError("the meter is off")),))
    signal.results = [failed, FetchResult(answers=measured(HOUR_OF_NOW, 200.0).answers, interrupted=True)]
    signal.refresh(NOW)
    signal.pop_messages()
    signal.refresh(NOW)
    assert signal.pop_messages() == []
    assert signal.problem == "the meter is off"
    assert signal.intensity(NOW).value == 200.0


def test_pickled_copy_has_the_arguments_and_no_values():
    signal = MeterSignal("2h")
    signal.results = [measured(HOUR_OF_NOW, 200.0)]
    signal.refresh(NOW)
    copy = pickle.loads(pickle.dumps(signal))
    assert copy.max_age == 2 * HOUR
    assert copy.spec() == signal.spec()
    assert copy.intensity(NOW) is None
    assert not copy.poller.is_running


def test_close_reports_no_recovery_of_a_request_that_was_not_sent(grid, build, monkeypatch):
    signal = build("charts")
    grid.faults = {None: "500"}
    signal.refresh(NOW)
    assert signal.problem is not None
    signal.pop_messages()
    grid.faults = {}
    parse = energy_charts.parse_co2eq

    def close_while_parsing(body):
        signal.close()
        return parse(body)

    monkeypatch.setattr(energy_charts, "parse_co2eq", close_while_parsing)
    signal.refresh(NOW, force=True)
    assert signal.pop_messages() == []
    assert signal.problem is not None


def test_start_waits_for_the_first_answer_for_a_limited_time(grid, build, monkeypatch):
    good = build("charts")
    good.bind_clock(lambda: NOW)
    good.start()
    assert good.intensity(NOW) is not None
    good.close()
    assert good.fetcher._transport is None

    monkeypatch.setattr(polled_signal, "FIRST_ANSWER_SECONDS", 0.3)
    grid.faults = {None: "drip_headers"}
    silent = build("json")
    silent.bind_clock(lambda: NOW)
    silent.fetcher.limits = Limits(read=60.0, total=60.0)
    silent.start()
    assert not silent.poller.wait_for_first_answer(0.0)
    assert silent.intensity(NOW) is None
    grid.drip_until = 0.0
