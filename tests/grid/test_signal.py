"""The contract of a signal: kinds, means and specs."""

from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.grid.providers.constant import ConstantSignal
from lightning_green.grid.signal import GridSignal, Reading, SignalKind

START = datetime(2026, 3, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


class MinimalSignal(GridSignal):
    """The intensity is 100 gCO2e/kWh times the hour of day until 20:00, and unknown afterward."""

    kind, source = SignalKind(), "minimal"

    def __init__(self, zone=None):
        self.zone = zone

    def intensity(self, at):
        return None if at.hour >= 20 else Reading(100.0 * at.hour, self.kind, self.source, self.zone, at)

    def forecast(self, now, horizon):
        return None


@pytest.mark.parametrize("text", ["average/lifecycle", "average/direct", "marginal/lifecycle", "marginal/direct"])
def test_kind_round_trip(text):
    assert str(SignalKind.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "name"),
    [("mean/direct", "method"), ("average", "scope"), ("average/direct/more", "scope"), ("", "method")],
)
def test_invalid_kind_raises(text, name):
    with pytest.raises(ValueError, match=f"`{name}` should be"):
        SignalKind.parse(text)


def test_mean_is_weighted_by_time_between_multiples_of_the_resolution():
    signal = MinimalSignal()
    assert signal.mean(START + 2.5 * HOUR, START + 4.25 * HOUR) == pytest.approx((0.5 * 200 + 300 + 0.25 * 400) / 1.75)
    assert signal.mean(START + 3.5 * HOUR, START + 3.75 * HOUR) == pytest.approx(300.0)


def test_mean_of_an_empty_interval_is_the_intensity():
    assert MinimalSignal().mean(START + 5 * HOUR, START + 5 * HOUR) == 500.0


def test_mean_is_none_if_a_part_is_unknown():
    signal = MinimalSignal()
    assert signal.mean(START + 18 * HOUR, START + 20 * HOUR) is not None
    assert signal.mean(START + 18 * HOUR, START + 20.01 * HOUR) is None


def test_spec_contains_the_exported_path_of_a_class_of_this_package():
    assert ConstantSignal(1.0).spec()["class_path"] == "lightning_green.grid.ConstantSignal"
    assert MinimalSignal()._spec(zone="DE") == {
        "class_path": f"{__name__}.MinimalSignal",
        "init_args": {"zone": "DE"},
    }


def test_from_zone_passes_the_zone_and_raises_without_one():
    assert MinimalSignal.from_zone("DE").zone == "DE"
    with pytest.raises(ValueError, match="MinimalSignal has no default zone"):
        MinimalSignal.from_zone(None)


def test_description_contains_source_kind_zone_and_reason():
    signal = MinimalSignal("DE")
    assert signal.describe() == "minimal, average/lifecycle, zone DE"
    signal.reason = "it covers DE"
    assert signal.describe() == "minimal, average/lifecycle, zone DE (it covers DE)"
    assert "zone none" in MinimalSignal().describe()


def test_signal_that_does_not_poll_needs_only_intensity_and_forecast():
    signal = MinimalSignal()
    signal.bind_clock(lambda: START)
    signal.start()
    signal.close()
    assert signal.pop_messages() == []
    assert signal.spec() is None
    assert signal.covers_until() is None
    assert signal.problem is None
