"""Files that Electricity Maps offers for download, as a trace and as a file that is kept up to date."""

from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.grid.errors import WrongZoneError
from lightning_green.grid.providers.electricity_maps_export import ExportColumns
from lightning_green.grid.providers.file import FileSignal, parse_rows
from lightning_green.grid.providers.trace import TraceSignal
from lightning_green.grid.registry import build_grid
from lightning_green.grid.spec import grid_from_spec

NOW = datetime(2024, 1, 1, 1, 20, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
SHARES = "Carbon-free energy percentage (CFE%),Renewable energy percentage (RE%)"
NEW = (
    "Datetime (UTC),Country,Zone name,Zone id,Carbon intensity gCO2eq/kWh (direct),"
    f"Carbon intensity gCO2eq/kWh (Life cycle),{SHARES},Data source,Data estimated,Data estimation method"
)
SUBSCRIPT = NEW.replace("gCO2eq", "gCO₂eq")
OLD = (
    "Datetime (UTC),Country,Zone Name,Zone Id,Carbon Intensity gCO₂eq/kWh (direct),Carbon Intensity gCO₂eq/kWh (LCA),"
    "Low Carbon Percentage,Renewable Percentage,Data Source,Data Estimated,Data Estimation Method"
)


def row(hour, direct, lifecycle, zone="DE", estimated="false", method=""):
    time = f"2024-01-01 {hour:02}:00:00"
    return f"{time},Germany,Germany,{zone},{direct},{lifecycle},50.1,48.2,example.org,{estimated},{method}"


ROWS = [row(0, 300.5, 350.25), row(1, 310.5, 360.25, estimated="true", method="TIME_SLICER_AVERAGE"), row(2, 320, 370)]


def write(path, header=NEW, rows=tuple(ROWS)):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("header", [NEW, SUBSCRIPT, OLD], ids=["2024", "subscript", "2022"])
@pytest.mark.parametrize(
    ("kind", "values"), [("average/direct", [300.5, 310.5]), ("average/lifecycle", [350.25, 360.25])]
)
def test_kind_selects_the_column_and_times_are_utc(tmp_path, header, kind, values):
    trace = TraceSignal(write(tmp_path / "DE_2024_hourly.csv", header), kind=kind)
    readings = [trace.intensity(NOW - HOUR), trace.intensity(NOW)]
    assert [reading.value for reading in readings] == values
    assert [reading.quality for reading in readings] == ["measured", "estimated"]
    assert readings[1].measured_at == datetime(2024, 1, 1, 1, tzinfo=timezone.utc)
    assert {(str(reading.kind), reading.zone) for reading in readings} == {(kind, "DE")}
    assert trace.covers_until() == datetime(2024, 1, 1, 3, tzinfo=timezone.utc)

    content = (tmp_path / "DE_2024_hourly.csv").read_bytes()
    points = parse_rows(content, "DE", kind, NOW).past
    assert [point.value for point in points[:2]] == values
    assert [point.quality for point in points] == ["measured", "estimated", "measured"]
    assert points[1].time == readings[1].measured_at


def test_export_is_a_grid_argument(tmp_path):
    path = write(tmp_path / "DE_2024_hourly.csv")
    assert build_grid(path).intensity(NOW).value == 360.25
    copy = grid_from_spec(TraceSignal(path, kind="average/direct").spec())
    assert (copy.intensity(NOW).value, copy.intensity(NOW).quality, copy.zone) == (310.5, "estimated", "DE")
    file = FileSignal(path, zone="DE")
    file.refresh(NOW)
    assert (file.intensity(NOW).value, file.intensity(NOW).quality) == (360.25, "estimated")
    assert file.problem is None


def test_column_can_be_named(tmp_path):
    path = write(tmp_path / "t.csv")
    column = "Carbon intensity gCO2eq/kWh (direct)"
    assert TraceSignal(path, kind="average/direct", column=column).intensity(NOW).value == 310.5
    with pytest.raises(ValueError, match="has no column `price`; it has Datetime"):
        TraceSignal(path, column="price")


def test_kind_that_the_export_lacks_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    write(path)
    with pytest.raises(ValueError, match="has the kinds average/direct and average/lifecycle; got `kind` 'marg"):
        TraceSignal(str(path), kind="marginal/direct")
    with pytest.raises(WrongZoneError, match="are average/direct and average/lifecycle, expected marginal/direct"):
        parse_rows(path.read_bytes(), "DE", "marginal/direct", NOW)


def test_another_zone_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    write(path)
    assert TraceSignal(str(path), zone="de").intensity(NOW).value == 360.25
    with pytest.raises(ValueError, match="line 2: the value is about the zone DE, expected FR"):
        TraceSignal(str(path), zone="FR")
    with pytest.raises(WrongZoneError, match="about zone DE, expected FR"):
        parse_rows(path.read_bytes(), "FR", "average/direct", NOW)
    write(path, rows=[row(0, 1, 2), row(1, 1, 2, zone="FR")])
    with pytest.raises(ValueError, match="line 3: the value is about the zone FR, expected DE"):
        TraceSignal(str(path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0, 1, 2), row(0, 1, 2)], "line 3: the time .* occurs twice"),
        ([row(0, 1, 2), row(1, "", "")], "line 3: the carbon intensity should be a number"),
        (["noon,Germany,Germany,DE,1,2"], "line 2: `datetime` should be like"),
        (["2024-01-01,G,G,DE,1,2", "2024-01-02,G,G,DE,1,2"], "line 3: there is no value from .*hourly or finer"),
    ],
)
def test_invalid_export_is_refused_with_its_line(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        TraceSignal(write(tmp_path / "t.csv", rows=rows))


def test_other_files_are_no_export():
    assert ExportColumns.find(["datetime", "carbon_intensity"]) is None
    assert ExportColumns.find(["Datetime (UTC)", "Price"]) is None
    assert ExportColumns.find([]) is None
