"""Values of a source collected in a file."""

from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.errors import NoDataError, WrongZoneError
from lightning_green.grid.providers.annual import AnnualMean
from lightning_green.grid.providers.constant import ConstantSignal
from lightning_green.grid.providers.file import FileSignal
from lightning_green.grid.providers.function import FunctionSignal
from lightning_green.grid.providers.typical_day import TypicalDay
from lightning_green.grid.recording import points_of, record

NOW = datetime(2026, 1, 15, 10, 20, tzinfo=timezone.utc)
HEADER = "datetime,carbon_intensity,quality,zone,kind"


def row(hour, value, quality="measured", zone="DE"):
    return f"2026-01-15T{hour:02d}:00:00Z,{value},{quality},{zone},average/lifecycle"


def source(path, *rows):
    """Return a signal with the given rows as its known values."""
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    signal = FileSignal(str(path), zone="DE")
    signal.refresh(NOW)
    return signal


def test_measured_value_replaces_an_estimate_and_is_not_replaced_by_one(tmp_path):
    out = tmp_path / "out.csv"
    record(source(tmp_path / "a.csv", row(8, 100), row(9, 200, "estimated")), out, NOW)
    record(source(tmp_path / "b.csv", row(8, 111, "estimated"), row(9, 222)), out, NOW)
    assert out.read_text().splitlines() == [HEADER, row(8, 100), row(9, 222)]


def test_values_that_the_source_no_longer_returns_are_kept(tmp_path):
    out = tmp_path / "out.csv"
    record(source(tmp_path / "a.csv", row(8, 100)), out, NOW)
    assert record(source(tmp_path / "b.csv", row(9, 200)), out, NOW) == 2
    assert out.read_text().splitlines() == [HEADER, row(8, 100), row(9, 200)]


def test_predictions_are_those_of_the_newest_forecast_after_the_last_value(tmp_path):
    out = tmp_path / "out.csv"
    record(source(tmp_path / "a.csv", row(10, 100), *(row(hour, 1, "forecast") for hour in range(10, 20))), out, NOW)
    newer = source(tmp_path / "b.csv", row(10, 100), row(10, 5, "forecast"), row(11, 6, "forecast"))
    record(newer, out, NOW)
    assert out.read_text().splitlines() == [HEADER, row(10, 100), row(11, 6, "forecast")]
    record(newer, out, NOW, with_forecast=False)
    assert out.read_text().splitlines() == [HEADER, row(10, 100)]


def test_source_without_values_writes_nothing(tmp_path):
    signal = FileSignal(str(tmp_path / "missing.csv"), zone="DE")
    assert record(signal, tmp_path / "new" / "out.csv", NOW) == 0
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("existing", "error"), [(row(8, 100, zone="FR"), WrongZoneError), ("2026-01-15T08:00:00Z,unknown", NoDataError)]
)
def test_file_of_another_zone_or_form_is_not_overwritten(tmp_path, existing, error):
    out = tmp_path / "out.csv"
    before = f"{HEADER}\n{existing}\n"
    out.write_text(before)
    with pytest.raises(error):
        record(source(tmp_path / "a.csv", row(9, 200)), out, NOW)
    assert out.read_text() == before


@pytest.mark.parametrize("static", [ConstantSignal(381.0, "DE"), AnnualMean("DE"), TypicalDay("DE")])
def test_static_values_are_no_data(tmp_path, static):
    out = tmp_path / "out.csv"
    failing = FileSignal(str(tmp_path / "missing.csv"), zone="DE")
    for signal in (static, ChainSignal(failing, [static]), ChainSignal(static, [static])):
        assert record(signal, out, NOW) == 0
        assert not out.exists()


def test_first_source_of_a_chain_with_a_present_value_is_recorded(tmp_path):
    failing = FileSignal(str(tmp_path / "missing.csv"), zone="DE")
    past, ahead = points_of(ChainSignal(failing, [FunctionSignal(lambda at: 381.0)]), NOW)
    assert [point.value for point in past] == [381.0]
    assert ahead[0].time > NOW
    assert ahead[-1].time <= NOW + timedelta(hours=96)
