"""Archives of a zone in CSV files."""

from datetime import datetime, timezone

import numpy as np
import pytest

from lightning_green.backtest.zone_archive import read_archive
from tests.helpers.zone_archives import make_archive, write_archive

HOUR = int(datetime(2023, 3, 2, tzinfo=timezone.utc).timestamp()) // 3600
ACTUAL = """datetime,carbon_intensity,carbon_intensity_direct
2023-03-02T00:00:00Z,300,200
2023-03-02T02:00:00+01:00,310,210
"""
FORECAST = """issued_at,kind,h00,h01
2023-03-02T00:00:00Z,lifecycle,301,302
2023-03-02T00:00:00Z,direct,201,202
2023-03-02T01:00:00Z,lifecycle,303,304
"""


@pytest.fixture
def read(tmp_path):
    """Return a function that writes the two files and reads them."""

    def write_and_read(actual=ACTUAL, forecast=FORECAST, **kwargs):
        files = [tmp_path / "US-CAL-CISO_2023.csv", tmp_path / "forecast.csv"]
        for file, text in zip(files, (actual, forecast), strict=True):
            if text is not None:
                file.write_text(text)
        return read_archive(files[0], None if forecast is None else files[1], **kwargs)

    return write_and_read


@pytest.mark.parametrize("scope", ["lifecycle", "direct"])
def test_archive_round_trip(tmp_path, scope):
    zone = make_archive(days=6)
    found = read_archive(*write_archive(zone, tmp_path), scope)
    share = 1.0 if scope == "lifecycle" else 0.5
    assert (found.zone, found.first, found.end, found.scope) == ("ZZ", zone.first, zone.end, scope)
    assert found.actual == pytest.approx(zone.actual * share, abs=0.006)
    assert np.array_equal(found.issued, zone.issued)
    assert found.forecasts == pytest.approx(zone.forecasts * share, abs=0.006)


def test_rows_of_the_scope_are_read_in_utc_hours(read):
    archive = read()
    assert archive.zone == "US-CAL-CISO"
    assert (archive.first, archive.end) == (HOUR, HOUR + 2)
    assert archive.issued.tolist() == [HOUR, HOUR + 1]
    assert archive.forecasts.tolist() == [[301, 302], [303, 304]]
    direct = read(scope="direct")
    assert direct.actual.tolist() == [200, 210]
    assert (direct.issued.tolist(), direct.forecasts.tolist()) == ([HOUR], [[201, 202]])


def test_forecasts_are_optional(read):
    archive = read(forecast=None)
    assert archive.actual.tolist() == [300, 310]
    assert archive.issued.shape == (0,)
    assert len(archive.forecasts) == 0


BAD_ACTUAL = {
    "gap": ("02:00:00+01:00", "03:00:00+01:00", r"US-CAL-CISO_2023\.csv, line 3: `datetime` should be an hour after"),
    "naive": ("02:00:00+01:00", "01:00:00", "line 3: `datetime` should have a time zone"),
    "half hour": ("02:00:00+01:00", "01:30:00Z", "line 3: `datetime` should be a full hour"),
    "no time": ("2023-03-02T02:00:00+01:00", "noon", "line 3: `datetime` should be like .*, got 'noon'"),
    "negative": (",310,", ",-310,", "line 3: `carbon_intensity` should be a number, 0 or more, got '-310'"),
    "not finite": (",310,", ",inf,", "line 3: `carbon_intensity` should be a number"),
    "short row": (",310,210", ",310", "line 3: the row should have 3 fields"),
    "no column": ("carbon_intensity,", "co2,", "has no column `carbon_intensity`; it has datetime, co2"),
    "empty": (ACTUAL[ACTUAL.index("\n") :], "\n", "has no rows"),
}


@pytest.mark.parametrize("case", BAD_ACTUAL)
def test_invalid_intensities_raise_with_file_and_line(read, case):
    old, new, message = BAD_ACTUAL[case]
    assert old in ACTUAL
    with pytest.raises(ValueError, match=message):
        read(actual=ACTUAL.replace(old, new))


BAD_FORECAST = {
    "order": ("2023-03-02T01:00:00Z", "2023-03-02T00:00:00Z", r"line 4: `issued_at` should be later than in the row"),
    "kind": (",direct,", ",marginal,", "line 3: `kind` should be .*, got 'marginal'"),
    "lead": (",h01", ",h02", r"line 2: the hours ahead should be h00, h01, ... without a gap, got `h02` too early"),
    "value": (",304", ",-", "line 4: `h01` should be a number"),
    "other kind": (",lifecycle,", ",direct,", "has no forecast of the kind 'lifecycle'"),
    "no column": ("issued_at", "time", "has no column `issued_at`"),
}


@pytest.mark.parametrize("case", BAD_FORECAST)
def test_invalid_forecasts_raise_with_the_line(read, case):
    old, new, message = BAD_FORECAST[case]
    assert old in FORECAST
    with pytest.raises(ValueError, match=message):
        read(forecast=FORECAST.replace(old, new))


def test_file_that_is_not_utf_8_raises(tmp_path):
    (tmp_path / "de.csv").write_bytes(b"datetime,carbon_intensity\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"de\.csv is not a CSV file in UTF-8"):
        read_archive(tmp_path / "de.csv")


def test_unknown_scope_raises(read):
    with pytest.raises(ValueError, match='should be "lifecycle" or "direct", got \'marginal\''):
        read(scope="marginal")
