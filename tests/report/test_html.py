"""The page contains what the ledger does, and no text of it is markup."""

import json
import re

import pytest

from lightning_green.report.html import html_page
from lightning_green.report.run_report import read_run_report
from tests.helpers.run_records import run_records

ATTACK = "</script><img src=x onerror=alert(1)>"


def write_run(folder, text="", records=None):
    folder.mkdir(parents=True, exist_ok=True)
    records = run_records() if records is None else records
    for one in records:
        one["v"], one["fit"] = 2, 0
        if text and "joules" in one:
            one["reason"] = text
    if text:
        records[0]["meter"] = records[1]["intensity"]["source"] = records[0]["intensity"]["zone"] = text
        records.insert(2, records[1] | {"event": "validation", "metrics": {text: 0.5}})
        records.insert(3, records[1] | {"event": "warning"})
        records.insert(4, records[1] | {"event": "decision", "action": text})
    (folder / "ledger.a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return read_run_report(folder)


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def without_scripts(page):
    return re.sub(r"<script.*?</script>|<style>.*?</style>", "", page, flags=re.S)


def test_headline_has_the_totals(tmp_path):
    page = without_scripts(html_page([write_run(tmp_path / "train-1")]))
    for expected in ("train-1", "1.311 kgCO2e", "4.278 kWh", "other: modeled.", "1 planned exit"):
        assert expected in page


def test_text_of_a_run_is_escaped(tmp_path):
    report = write_run(tmp_path / "<b>run", ATTACK)
    page = html_page([report, report], title=ATTACK)
    assert ATTACK not in page
    assert "<img" not in without_scripts(page)
    assert "<b>run" not in page
    assert "&lt;img src=x" in without_scripts(page)
    (first, _) = data_of(page)["runs"]
    assert first["decisions"][0][1:3] == [ATTACK, ATTACK]  # the script encodes them before it shows them
    assert list(first["metrics"]) == [ATTACK]


def test_control_characters_are_replaced(tmp_path):
    page = without_scripts(html_page([write_run(tmp_path / "run", "a\u202eb")]))
    assert "\u202e" not in page
    assert "a?b" in page


def test_page_loads_nothing(tmp_path):
    page = html_page([write_run(tmp_path / "run")])
    assert "default-src 'none'" in page
    assert not re.search(r"<(link|img|iframe|script[^>]+src)", without_scripts(page))


def test_several_runs_are_side_by_side(tmp_path):
    page = html_page([write_run(tmp_path / "first"), write_run(tmp_path / "second")])
    text = without_scripts(page)
    assert '<th scope="col">first</th><th scope="col">second</th>' in text
    assert len(data_of(page)["runs"]) == 2
    assert text.count("<td>1.311 kgCO2e</td>") == 4


def test_run_that_has_not_started_has_a_page(tmp_path):
    assert "The run has not started" in html_page([write_run(tmp_path / "run", records=[])])


def test_compression_has_a_table_and_says_what_is_slower(tmp_path):
    rows = [("Latency of one sample, ms", "10", "20", "2.000")]
    page = html_page([], {"small": {"rows": rows, "warnings": ["The compressed model is slower"], "cost": "It took."}})
    assert "The compressed model is slower" in page
    assert "<td>2.000</td>" in page
    assert "echarts" not in page


def test_no_runs_raise():
    with pytest.raises(ValueError, match="at least one run"):
        html_page([])
