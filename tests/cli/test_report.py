"""The command ``lightning-green report``."""

import json
import threading
import urllib.error
import urllib.request

import pytest
from typer.testing import CliRunner

from lightning_green.cli.main import app
from lightning_green.report.html import html_page
from lightning_green.report.live import LiveServer
from lightning_green.report.run_report import read_run_report
from tests.report.test_html import write_run

COMPRESSION = {
    "before": {"parameters": 100, "weight_mb": 4.0, "latency_ms": 10.0, "accuracy": 0.9},
    "after": {"parameters": 50, "weight_mb": 1.0, "latency_ms": 12.0, "accuracy": 0.89},
    "compression": {"seconds": 3.0, "kwh": 0.01, "gco2e": None},
}


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", "why")
    return tmp_path / "run"


def report(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_page_is_written_and_its_place_is_printed(run_dir, tmp_path):
    result = report(run_dir)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Wrote report.html" in result.stderr
    assert "1.311 kgCO2e" in (tmp_path / "report.html").read_text()


def test_run_directory_is_not_changed(run_dir):
    before = {path: path.stat().st_mtime_ns for path in (run_dir, *run_dir.iterdir())}
    assert report(run_dir).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (run_dir, *run_dir.iterdir())} == before


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("md", "| Emissions | 1.311 kgCO2e |"),
        ("csv", "run,finished,0,4.27"),
        ("json", '"state": "finished"'),
        ("model-card", "co2_eq_emissions:"),
        ("sci", "SCI = 1.311 kgCO2e"),
        ("paper", "Training used 4.278 kWh"),
    ],
)
def test_text_formats_are_printed_or_written(run_dir, tmp_path, form, expected):
    assert expected in report(run_dir, "--format", form).stdout
    assert report(run_dir, "--format", form, "--output", "out.txt").exit_code == 0
    assert expected in (tmp_path / "out.txt").read_text()


def test_json_is_one_object(run_dir):
    (run,) = json.loads(report(run_dir, "--format", "json").stdout)["runs"]
    assert run["name"] == "run"


def test_picture_is_a_png(run_dir, tmp_path):
    assert report(run_dir, "--format", "png").exit_code == 0
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_compression_is_shown_before_and_after(run_dir, tmp_path):
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "report.json").write_text(json.dumps(COMPRESSION))
    assert report(run_dir, tmp_path / "small", "--output", "both.html").exit_code == 0
    page = (tmp_path / "both.html").read_text()
    assert "Compressed model: small" in page
    assert "slower than the original: Latency of one sample, ms 12 instead of 10" in page
    assert "larger than the original" not in page


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["missing"], "missing is not a run directory"),
        (["run", "--format", "md", "--live"], "`--live` serves the page"),
        (["run", "--output", "no/such/folder/x.html"], "cannot be written"),
        (["bad.json"], "is not a report of `lightning-green compress`"),
        (["bad.json", "run", "--format", "docx"], "docx"),
    ],
)
def test_wrong_usage_is_one_line(run_dir, tmp_path, arguments, expected):
    (tmp_path / "bad.json").write_text('{"before": 1}')
    result = report(*arguments)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.output


@pytest.fixture
def server(run_dir):
    server = LiveServer(lambda: html_page([read_run_report(run_dir)], refresh_seconds=10))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def get(server, path="", **headers):
    request = urllib.request.Request(server.address + path, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def test_live_page_is_that_of_the_moment(server, run_dir):
    assert "1.311 kgCO2e" in get(server)
    assert '<meta http-equiv="refresh" content="10">' in get(server)
    ledger = run_dir / "ledger.a.jsonl"
    ledger.write_text("\n".join(ledger.read_text().splitlines()[:2]) + "\n")
    assert "1.311 kgCO2e" not in get(server)


def test_live_page_is_served_to_this_machine_only(server):
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(server, Host="example.com")
    assert refused.value.code == 403
    with pytest.raises(urllib.error.HTTPError) as missing:
        get(server, "etc/passwd")
    assert missing.value.code == 404


def test_price_is_a_number_or_a_file(run_dir, tmp_path):
    (tmp_path / "prices.csv").write_text("datetime,price\n2024-05-02T16:00Z,0.3\n")
    found = report(run_dir, "--price", "0.32", "--currency", "EUR", "--format", "md", "--market-factor", "20")
    assert "| Electricity cost | 1.37 EUR |" in found.stdout
    assert "market-based (stated factor of 20 gCO2e/kWh)" in found.stdout
    found = report(run_dir, "--price", "prices.csv", "--format", "json")
    assert json.loads(found.stdout)["runs"][0]["cost"]["unknown_kwh"] > 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--price", "none.csv"], "exists"),
        (["--price", "nan"], "finite"),
        (["--currency", "EUR"], "Add --price"),
        (["--price", "1", "--currency", "\x1b[31mEUR"], "short name"),
        (["--market-factor", "-1"], "market-factor"),
    ],
)
def test_wrong_price_is_reported(run_dir, arguments, message):
    result = report(run_dir, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
