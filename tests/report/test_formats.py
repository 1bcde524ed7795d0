"""The other formats of a report."""

import csv
import io
import json

import yaml

from lightning_green.report.formats import csv_text, json_record, markdown
from lightning_green.report.statements import model_card, sci_statement
from lightning_green.report.text import method_paragraph
from tests.report.test_html import write_run


def test_csv_has_one_line_for_each_run(tmp_path):
    runs = [write_run(tmp_path / "=run"), write_run(tmp_path / "none", records=[])]
    first, second = csv.DictReader(io.StringIO(csv_text(runs)))
    assert (first["run"], second["run"]) == ("'=run", "none")  # no formula in a spreadsheet
    assert round(float(first["gco2e"]), 1) == 1311.1
    assert (second["gco2e"], second["kwh"]) == ("", "")


def test_json_has_the_status_and_the_curves(tmp_path):
    record = json.loads(json.dumps(json_record(write_run(tmp_path / "run", "why")), allow_nan=False))
    assert record["state"] == "finished"
    assert record["emissions"][0]["gco2e"] == record["emitted"][-1][1]
    assert record["decisions"][0]["text"] == "why"


def test_markdown_escapes_cells(tmp_path):
    text = markdown([write_run(tmp_path / "a|<b>")])
    assert text.splitlines()[0] == "| | a\\|&lt;b> |"
    assert "| Emissions | 1.311 kgCO2e |" in text


def test_model_card_is_yaml(tmp_path):
    card = yaml.safe_load(model_card(write_run(tmp_path / "run", 'a"b: c')))["co2_eq_emissions"]
    assert round(card["emissions"], 1) == 1311.1
    assert card["geographical_location"] == 'a"b: c'
    assert "modeled" in card["source"]


def test_sci_adds_embodied_emissions_only_if_they_are_stated(tmp_path):
    report = write_run(tmp_path / "run")
    assert "SCI = 1.311 kgCO2e" in sci_statement(report)
    assert "not stated" in sci_statement(report)
    assert "SCI = 1.411 kgCO2e" in sci_statement(report, embodied_grams=100.0)


def test_paragraph_names_what_is_modeled(tmp_path):
    text = method_paragraph(write_run(tmp_path / "run"))
    assert "other: modeled" in text
    assert "1.311 kgCO2e" in text


def test_statements_of_a_run_without_intensity_say_so(tmp_path):
    report = write_run(tmp_path / "run", records=[])
    assert model_card(report).startswith("# The emissions are unknown")
    assert sci_statement(report).startswith("The SCI is unknown")
    assert method_paragraph(report).startswith("The energy of the training was not measured.")
