"""The figures and the curves of a report are those of the ledger."""

import json

import numpy as np
import pytest

from lightning_green.report.formats import csv_text
from lightning_green.report.html import html_page
from lightning_green.report.run_report import MAX_ROWS, read_run_report
from lightning_green.report.series import MAX_POINTS, spread
from tests.helpers.run_records import at, make_record, run_records


def write(folder, records, name="ledger.a.jsonl"):
    (folder / name).write_text("".join(json.dumps({"v": 2, "fit": 0, **record}) + "\n" for record in records))
    return read_run_report(folder)


def measured(hours, name, joules, **fields):
    return make_record(hours, name, joules=joules, **fields) | {"v": 2, "fit": 0}


def test_energy_and_emissions_are_those_of_the_ledger(tmp_path):
    report = write(tmp_path, run_records())
    assert report.status.energy_kwh == pytest.approx(15.4 / 3.6)
    # 8.2 MJ at 400 and 7.2 MJ at 200 gCO2e/kWh
    assert report.emissions.gco2e == pytest.approx((8.2 * 400 + 7.2 * 200) / 3.6)
    assert report.emitted[-1][1] == pytest.approx(report.emissions.gco2e)
    assert (report.status.exits, report.status.starts, report.status.state.name) == (1, 2, "finished")


def test_power_curve_has_the_energy_of_the_ledger(tmp_path):
    report = write(tmp_path, run_records())
    width = report.power_times[1] - report.power_times[0]
    assert sum(report.power["other"]) * width == pytest.approx(15.4e6)


def test_baseline_curve_ends_at_the_emissions_without_waiting(tmp_path):
    away = {"since": at(1).isoformat(), "seconds": [0, 3600], "values": [300.0, 200.0]}
    records = [
        measured(0, "started", 0.0),
        measured(1, "paused", 3.6e6),
        measured(5, "started", 0.0, attempt=2, startup_s=0.0, intensity=100.0, away=away),
        measured(7, "finished", 7.2e6, attempt=2, intensity=100.0),
    ]
    emissions = write(tmp_path, records).emissions
    # 1 kWh an hour at 400, and without the exit at 300 and 200 gCO2e/kWh
    assert (emissions.run_now_gco2e, emissions.gco2e) == (pytest.approx(900.0), pytest.approx(600.0))
    assert emissions.known_share == pytest.approx(1.0)
    curve = [grams for _, grams in write(tmp_path, records).emitted_run_now]
    assert (curve[-1], curve) == (pytest.approx(900.0), sorted(curve))


def test_intensity_of_an_exit_is_part_of_the_curve(tmp_path):
    records = run_records()
    assert not any(one.value == 300.0 for one in write(tmp_path, records).intensity)
    records[5]["away"] = {"since": at(4).isoformat(), "seconds": [0], "values": [300.0]}
    found = next(one for one in write(tmp_path, records).intensity if one.value == 300.0)
    assert (found.start, found.end) == (at(4).timestamp(), at(10).timestamp())


def test_saving_can_be_negative(tmp_path):
    records = [
        measured(0, "started", 0.0, intensity=100.0),
        measured(1, "state", 3.6e6, intensity=100.0, state="held"),
        measured(3, "state", 7.2e6, intensity=100.0),
        measured(4, "finished", 10.8e6, intensity=400.0),
    ]
    report = write(tmp_path, records)
    assert report.emissions.saving_pct < -100.0


def test_validations_have_their_metrics_and_the_energy_until_then(tmp_path):
    records = [
        measured(0, "started", 0.0),
        measured(1, "validation", 3.6e6, metrics={"val_acc": 0.5, "val_loss": None, "a": "text"}),
        measured(2, "finished", 7.2e6),
    ]
    (one,) = write(tmp_path, records).validations
    assert (one.kwh, one.grams, one.metrics) == (1.0, pytest.approx(400.0), {"val_acc": 0.5})


def test_forecast_is_that_of_the_decision(tmp_path):
    series = {"since": at(1).isoformat(), "seconds": [0, 3600], "values": [410.0, 120.0]}
    records = [
        measured(0, "started", 0.0),
        measured(1, "decision", 3.6e6, action="run", forecast=series),
        measured(1.5, "decision", 3.6e6, action="run", forecast={"seconds": "damaged"}),
        measured(2, "finished", 7.2e6),
    ]
    report = write(tmp_path, records)
    (forecast,) = report.forecasts
    assert forecast.values == [(at(1).timestamp(), 410.0), (at(2).timestamp(), 120.0)]
    assert [one.what for one in report.decisions] == ["run", "run"]


def test_energy_of_other_nodes_is_included(tmp_path):
    other = [{**one, "node_rank": 1, "node": "b", "event": f"node_{one['event']}"} for one in run_records()]
    other = [one for one in other if "joules" in one]
    write(tmp_path, other, "ledger.b.jsonl")
    report = write(tmp_path, [one | {"nodes": 2} for one in run_records()])
    assert report.status.energy_kwh == pytest.approx(2 * 15.4 / 3.6)
    assert report.emitted[-1][1] == pytest.approx(report.emissions.gco2e)


def test_long_ledger_has_short_curves(tmp_path):
    rows = 5000
    records = [measured(0, "started", 0.0)]
    records += [measured(n / 60, "sample", 6e4 * n, intensity=100.0 + n % 300) for n in range(1, rows)]
    records += [measured(rows / 60, "decision", 6e4 * rows, action="run", reason=str(n)) for n in range(2 * MAX_ROWS)]
    report = write(tmp_path, records)
    for curve in (report.intensity, report.emitted, report.emitted_run_now, report.power_times):
        assert 100 < len(curve) <= MAX_POINTS
    mean = sum((one.end - one.start) * one.value for one in report.intensity)
    assert mean / sum(one.end - one.start for one in report.intensity) == pytest.approx(249.5, rel=0.01)
    assert [report.decisions[0].text, report.decisions[-1].text] == ["0", str(2 * MAX_ROWS - 1)]
    assert len(report.decisions) == MAX_ROWS


def test_run_without_a_start_has_no_curves(tmp_path):
    report = write(tmp_path, [])
    assert (report.spans, report.intensity, report.emissions, report.status.energy_kwh) == ((), (), None, None)


def test_spread_keeps_the_sum():
    generator = np.random.default_rng(0)
    starts = np.sort(generator.uniform(0, 90, 50))
    ends = starts + generator.uniform(0.1, 10, 50)
    amounts, values = generator.uniform(0, 5, 50), generator.uniform(100, 500, 50)
    sums, weighted = spread(np.linspace(0, 100, 38), starts, ends, amounts, values)
    assert sums.sum() == pytest.approx(amounts.sum())
    assert weighted.sum() == pytest.approx((amounts * values).sum())
    assert sums.min() > -1e-9


@pytest.mark.parametrize("metrics", [{"a": 10**400}, [[1, 2.0]], {"a": [1]}, "text"])
def test_damaged_metrics_are_left_out(tmp_path, metrics):
    records = [measured(0, "started", 0.0), measured(1, "validation", 3.6e6, metrics=metrics)]
    report = write(tmp_path, [*records, measured(2, "finished", 7.2e6)])
    assert [one.metrics for one in report.validations] in ([], [{}])


def test_text_of_a_measurement_has_no_control_characters(tmp_path):
    records = [measured(0, "started", 0.0), measured(1, "finished", 3.6e6)]
    for one in records:
        one["intensity"]["kind"] = "x\x1b]0;a\x07\ud800"
        one["joules"] = {"gpu\ud800": one["joules"]["other"]}
    report = write(tmp_path, records)
    assert report.emissions.kind == "x?]0;a??"
    assert report.status.components[0].component == "gpu?"
    html_page([report]).encode()
    assert "\x1b" not in csv_text([report])


def test_metrics_of_each_fit_have_a_curve_of_their_own(tmp_path):
    records = [
        measured(0, "started", 0.0),
        measured(1, "validation", 3.6e6, metrics={"val": 0.5}),
        measured(2, "finished", 7.2e6),
        measured(2, "started", 0.0) | {"fit": 1},
        measured(3, "validation", 3.6e6, metrics={"val": 0.7}) | {"fit": 1},
        measured(4, "finished", 7.2e6) | {"fit": 1},
    ]
    report = write(tmp_path, records)
    assert report.metric_names == ["val", "val (fit 1)"]
    assert [one.kwh for one in report.validations] == [1.0, 3.0]
