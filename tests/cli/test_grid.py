"""``lightning-green grid`` against fake services over real HTTP."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
from typer.testing import CliRunner

from lightning_green.cli.main import app
from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.providers.annual import AnnualMean
from lightning_green.grid.providers.file import FileSignal
from lightning_green.grid.providers.trace import TraceSignal
from tests.helpers.fake_grid import PASSWORD, TOKEN, FakeGrid, solar_day
from tests.helpers.live_signals import PROVIDERS, service_environment

__all__ = ["service_environment"]
pytestmark = pytest.mark.usefixtures("service_environment")


@pytest.fixture
def live(monkeypatch):
    """Fake services at the present time."""
    monkeypatch.delenv("LIGHTNING_GREEN_ZONE", raising=False)
    with FakeGrid(datetime.now(timezone.utc)) as server:
        yield server


def spec(name, grid):
    return json.dumps(PROVIDERS[name](grid).spec())


def run(*arguments):
    return CliRunner().invoke(app, ["grid", *arguments])


def test_show_prints_the_value_its_origin_and_a_chart(live):
    result = run("show", "--source", spec("em", live), "--hours", "24")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    hour = live.now.replace(minute=0, second=0, microsecond=0)
    assert lines[0] == "electricity-maps, average/lifecycle, zone DE"
    assert f"{solar_day(hour):.0f} gCO2e/kWh, measured, of {hour:%H:%M} UTC" in lines[1]
    assert lines[1].endswith("from electricity-maps")
    values = [solar_day(hour + timedelta(hours=ahead)) for ahead in range(24)]
    assert f"lowest {min(values):.0f}" in lines[2]
    assert f"highest {max(values):.0f}" in lines[2]
    bars = [line.split("┤")[1] for line in lines[4:11]]
    assert len(bars) == 7
    assert len(bars[-1]) == 24
    top = bars[0]
    assert top[values.index(max(values))] == "█"
    assert "░" not in "".join(bars)


def test_show_draws_hours_without_forecast_lighter(live):
    live.faults = {"em": "short_forecast"}
    result = run("show", "--source", spec("em", live), "--hours", "12")
    assert "then the same hours of recent days" in result.stdout
    assert "░" in result.stdout


def test_show_json(live):
    output = json.loads(run("show", "--source", spec("charts", live), "--json").stdout)
    assert output["zone"] == "DE"
    assert output["kind"] == "average/lifecycle"
    assert output["problem"] is None
    assert output["now"]["gco2e_per_kwh"] == solar_day(live.now)
    assert 0 <= output["now"]["age_s"] <= 900
    assert len(output["forecast"]) >= 47 * 4


@pytest.mark.parametrize("command", ["show", "plan"])
def test_failing_source_is_reported_in_one_line(live, command):
    live.faults = {None: "401_html"}
    more = ["--work", "2h", "--deadline", "10h"] if command == "plan" else []
    result = run(command, "--source", spec("em", live), *more)
    assert "does not accept the credential (401)" in result.stderr
    assert "Traceback" not in result.output
    assert TOKEN not in result.output
    if command == "show":
        assert result.exit_code == 1
        assert "unknown" in result.stdout
    else:
        assert result.exit_code == 0
        assert "Run now: nothing is known about the carbon intensity." in result.stdout


def test_plan_schedules_the_work(live):
    result = run("plan", "--work", "3h", "--deadline", "30h", "--source", spec("charts", live), "--json")
    assert result.exit_code == 0, result.output
    output = json.loads(result.stdout)
    assert {slot["action"] for slot in output["slots"]} <= {"run", "exit", "hold"}
    ran = [slot for slot in output["slots"] if slot["action"] == "run"]
    hours = sum(
        (datetime.fromisoformat(slot["end"]) - datetime.fromisoformat(slot["start"])).total_seconds() / 3600
        for slot in ran
    )
    assert hours == pytest.approx(3.0, abs=1e-3)
    shown = run("plan", "--work", "3h", "--deadline", "30h", "--source", spec("charts", live), "--pause", "hold")
    assert f"running now {output['run_now_gco2e_per_kw']:.0f}" in shown.stdout
    assert " exit " not in shown.stdout
    late = ("plan", "--work", "3h", "--deadline", "30h", "--source", spec("charts", live), "--json", "--pause", "exit")
    slots = json.loads(run(*late, "--return-time", "28h").stdout)["slots"]
    assert {slot["action"] for slot in slots} == {"run"}, "no exit of 28 hours fits"


def test_doctor_reports_values_or_the_failure_of_each_source(live):
    for name in PROVIDERS:
        result = run("doctor", "--source", spec(name, live))
        assert result.exit_code == 0, result.output
        assert result.stdout.count("\n") == 1
        assert result.stdout.startswith("  ok  ")
        assert "gCO2e/kWh" in result.stdout
    (answer,) = json.loads(run("doctor", "--source", spec("em", live), "--json").stdout)["sources"]
    assert (answer["source"], answer["works"]) == ("electricity-maps", True)
    assert "no forecast" not in run("doctor", "--source", spec("em", live)).stdout
    live.faults = {None: "404"}
    result = run("doctor", "--source", spec("em", live))
    assert result.exit_code == 1
    assert result.stdout.startswith("  !!  ")
    assert "does not accept the request, most often because of the zone (404)" in result.stdout
    live.faults = {"em": "no_forecast_in_plan"}
    result = run("doctor", "--source", spec("em", live))
    assert result.exit_code == 0
    assert "the token's plan has no forecast" in result.stdout
    live.faults = {None: "clock_skew"}
    result = run("doctor", "--source", spec("charts", live))
    assert result.exit_code == 1
    assert "clock" in result.stdout


def test_doctor_asks_only_configured_sources(monkeypatch):
    monkeypatch.delenv("ELECTRICITYMAPS_API_TOKEN")
    monkeypatch.delenv("WATTTIME_PASSWORD")
    result = run("doctor", "--zone", "JP")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("  --  ") for line in lines)
    assert "ELECTRICITYMAPS_API_TOKEN not set" in lines[0]
    assert "not configured: WATTTIME_PASSWORD not set" in lines[1]
    found = json.loads(run("doctor", "--zone", "JP", "--json").stdout)
    assert found["zone"] == "JP"
    assert [one["works"] for one in found["sources"]] == [None] * 5
    assert lines[0].endswith(found["sources"][0]["text"])


def test_recorded_file_is_a_source(live, tmp_path):
    out = tmp_path / "shared" / "de.csv"
    result = run("record", "--source", spec("charts", live), "--out", str(out), "--once")
    assert result.exit_code == 0, result.output
    now = datetime.now(timezone.utc)
    reader = FileSignal(str(out), zone="DE", resolution="15m")
    assert reader.refresh(now) == []
    assert reader.intensity(now).value == pytest.approx(solar_day(live.now), rel=1e-5)
    forecast = reader.forecast(now, timedelta(hours=24))
    assert forecast.end > now + timedelta(hours=23)
    for at, value in zip(forecast.times, forecast.values, strict=True):
        assert value == pytest.approx(solar_day(at), rel=1e-5)
    assert FileSignal(str(out), zone="FR").refresh(now) == ["the file is about zone DE, expected FR"]
    assert FileSignal(str(out), "DE", "average/direct").refresh(now)

    # Later: measured values are kept, also those that the service no longer returns.
    header, first, *rest = out.read_text().splitlines()
    older = datetime.fromisoformat(first.split(",")[0].replace("Z", "+00:00")) - timedelta(minutes=15)
    kept = f"{older:%Y-%m-%dT%H:%M:%SZ},123.4,measured,DE,average/lifecycle"
    out.write_text("\n".join([header, kept, first, *rest, "2026-01-15T10:00:00Z,12"]))  # and an incomplete last line
    again = run("record", "--source", spec("charts", live), "--out", str(out), "--once", "--no-forecast")
    assert again.exit_code == 0, again.output
    rows = out.read_text().splitlines()
    assert rows[:3] == [header, kept, first]
    assert not any("forecast" in row for row in rows)
    assert rows[1:] == sorted(set(rows[1:]))
    assert TraceSignal(str(out), zone="DE").series.values[0] == 123.4
    assert [path.name for path in out.parent.iterdir()] == ["de.csv"]


def test_record_continues_after_a_failure_of_the_first_request(live, tmp_path):
    out = tmp_path / "de.csv"
    arguments = ("record", "--source", spec("charts", live), "--out", str(out), "--once")
    live.faults = {None: "502_html"}
    assert run(*arguments).exit_code == 1
    assert not out.exists()
    live.faults = {}
    assert run(*arguments).exit_code == 0
    header, *rows = out.read_text().splitlines(keepends=True)
    out.write_text(header)
    assert run(*arguments).exit_code == 0
    assert out.read_text().splitlines(keepends=True) == [header, *rows]
    out.write_text(header + "2026-01-15T10:00:00Z,unknown,measured,DE,average/lifecycle\n")
    result = run(*arguments)
    assert result.exit_code == 2
    assert "no usable value" in result.stderr


def test_record_keeps_rows_while_the_source_fails_and_refuses_another_zone(live, tmp_path):
    out = tmp_path / "de.csv"
    assert run("record", "--source", spec("charts", live), "--out", str(out), "--once").exit_code == 0
    before = out.read_text()
    live.faults = {None: "502_html"}
    result = run("record", "--source", spec("charts", live), "--out", str(out), "--once")
    assert "reports a server error (502)" in result.stderr
    measured = [row for row in before.splitlines() if "measured" in row]
    assert [row for row in out.read_text().splitlines() if "measured" in row] == measured
    live.faults = {}
    other = run("record", "--source", spec("watttime", live), "--out", str(out), "--once")
    assert other.exit_code == 2
    assert "the file is about zone DE" in other.stderr


@pytest.mark.parametrize("source", ["annual:DE", "typical:DE", "381"])
def test_record_writes_no_static_value(source, tmp_path):
    out = tmp_path / "de.csv"
    result = run("record", "--source", source, "--out", str(out), "--once")
    assert result.exit_code == 1
    assert "a long-run mean is no data" in result.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show"], "The zone is missing: pass --zone DE"),
        (["show", "--zone", "AQ"], "finds no source for 'AQ'"),
        (["show", "--zone", "DE-XX"], "Did you mean DE?"),
        (["show", "--source", "green"], "`grid` should be"),
        (["show", "--source", "{}"], "class_path"),
        (["show", "--source", "{"], "Expecting"),
        (["plan", "--source", "typical:DE", "--work", "soon", "--deadline", "2h"], "`work` should be a duration"),
        (["plan", "--source", "typical:DE", "--work", "1h", "--deadline", "2h", "--pause", "sleep"], "`pauses`"),
        (["record", "--source", "typical:DE", "--out", "x.csv", "--every", "1s"], "ten seconds or more"),
        (["doctor", "--zone", "Germany!"], "should be an Electricity Maps zone"),
    ],
)
def test_wrong_usage_is_reported_in_one_line(arguments, message, monkeypatch):
    monkeypatch.delenv("LIGHTNING_GREEN_ZONE", raising=False)
    monkeypatch.delenv("ELECTRICITYMAPS_API_TOKEN", raising=False)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_command_line_of_a_user(live):
    environment = {**os.environ, "LIGHTNING_GREEN_ZONE": "DE"}
    command = [sys.executable, "-m", "lightning_green", "grid", "show", "--source", spec("watttime", live)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "watttime, marginal/direct, zone CAISO_NORTH" in result.stdout
    assert PASSWORD not in result.stdout + result.stderr


def test_yearly_mean_that_replaces_a_silent_source_is_named_in_the_plan(live):
    live.faults = {None: "502_html"}
    chain = ChainSignal(PROVIDERS["charts"](live), [AnnualMean("DE")])
    arguments = ("plan", "--work", "2h", "--deadline", "10h", "--source", json.dumps(chain.spec()))
    shown = run(*arguments)
    assert shown.exit_code == 0, shown.output
    assert "All figures: annual mean DEU" in shown.stdout
    assert ", static (the preferred source fails: 127.0.0.1 reports a server error (502))" in shown.stdout
    output = json.loads(run(*arguments, "--json").stdout)
    assert output["source"].startswith("annual mean DEU")
    assert output["quality"] == "static"
    assert "502" in output["problem"]
