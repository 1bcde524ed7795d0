"""Cost is the sum over intervals of energy x PUE x mean price, of all nodes, waiting included."""

import csv
import io
import json
from datetime import timedelta

import pytest

from lightning_green.grid.prices import build_prices
from lightning_green.planning.prices import PriceSeries
from lightning_green.report.cost import Rates
from lightning_green.report.formats import csv_text, json_record, markdown
from lightning_green.report.html import html_page
from lightning_green.report.run_report import read_run_report
from tests.helpers.run_records import at, make_record, run_records

HOURLY = [0.30, 0.40, 0.20, 0.10, 0.50, 0.5, 0.5, 0.5, 0.5, 0.5, 0.05, -0.02]
"""Prices of the 12 hours of ``run_records``."""


def write(folder, records, name="ledger.a.jsonl"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps({**record, "v": 2, "fit": 0}) + "\n" for record in records))


def with_pue(records, pue):
    return [record | {"pue": pue} if "joules" in record else record for record in records]


def hourly(values):
    return PriceSeries.from_points([(at(hour), price) for hour, price in enumerate(values)])


def cost_of(folder, prices, **rates):
    return read_run_report(folder, rates=Rates(prices, **rates)).cost


def test_cost_is_that_of_a_hand_calculation(tmp_path):
    write(tmp_path, with_pue(run_records(), 1.5))
    cost = cost_of(tmp_path, hourly(HOURLY))
    # 1 kWh, a hold of 2 h with 1/3.6 kWh, 1 kWh, a restart of 0.5 h with 0.5 kWh, then 1.5 kWh in 1.5 h
    kwh_and_price = [(1.0, 0.30), (1 / 3.6, (0.40 + 0.20) / 2), (1.0, 0.10), (0.5, 0.05), (0.5, 0.05), (1.0, -0.02)]
    assert cost.amount == pytest.approx(1.5 * sum(kwh * price for kwh, price in kwh_and_price), rel=1e-12)
    # without waiting: 1 kWh in each of the first three hours and 0.5 kWh in half of the fourth
    assert cost.run_now == pytest.approx(1.5 * (0.30 + 0.40 + 0.20 + 0.5 * 0.10), rel=1e-12)
    assert cost.saving == pytest.approx(cost.run_now - cost.amount)
    assert cost.saving_pct == pytest.approx(100 * cost.saving / cost.run_now)
    assert (cost.unknown_kwh, cost.run_now_unknown_kwh) == (0.0, 0.0)


def test_constant_price_is_paid_for_all_energy(tmp_path):
    write(tmp_path, with_pue(run_records(), 1.2))
    cost = cost_of(tmp_path, build_prices(0.32))
    assert cost.amount == pytest.approx(15.4 / 3.6 * 1.2 * 0.32)
    assert cost.saving < 0.0  # holding and restarting cost energy


def test_energy_of_every_node_is_paid_at_its_own_time(tmp_path):
    write(tmp_path, [make_record(0, "started", startup_s=0.0), make_record(2, "finished", joules=7.2e6)])
    nodes = [
        make_record(1, "started", startup_s=0.0, node="b", node_rank=1),
        make_record(2, "finished", joules=3.6e6, node="b", node_rank=1),
    ]
    write(tmp_path, nodes, "ledger.b.jsonl")
    assert cost_of(tmp_path, hourly([0.1, 0.4])).amount == pytest.approx(0.1 + 0.4 + 0.4)


def test_negative_prices_give_negative_costs(tmp_path):
    write(tmp_path, run_records())
    cost = cost_of(tmp_path, hourly([-price for price in HOURLY]))
    assert cost.amount < 0.0
    assert cost.run_now < 0.0
    assert cost.saving_pct is None  # a percentage of an income has no meaning
    assert cost.saving == pytest.approx(cost.run_now - cost.amount)


def test_gap_is_unknown_and_reported(tmp_path):
    write(tmp_path, run_records())
    cost = cost_of(tmp_path, hourly([*HOURLY[:-1], None]))
    assert cost.unknown_kwh == pytest.approx(1.0)
    assert (cost.saving, cost.run_now_unknown_kwh) == (None, 0.0)
    report = read_run_report(tmp_path, rates=Rates(hourly([*HOURLY[:-1], None])))
    assert "The price of 1.000 kWh is unknown" in html_page([report])
    assert "| Energy without a known price | 1.000 kWh |" in markdown([report])


def test_unknown_price_of_the_time_without_waiting_gives_no_saving(tmp_path):
    write(tmp_path, run_records())
    missing = hourly([*HOURLY[:1], HOURLY[1], None, *HOURLY[3:]])
    cost = cost_of(tmp_path, missing)
    assert cost.run_now_unknown_kwh == pytest.approx(1.0)
    assert cost.saving is None


def test_idle_devices_of_a_kept_allocation_are_paid(tmp_path):
    records = run_records()
    idle = {"since": at(4).isoformat(), "until": at(10).isoformat(), "idle_joules": 7.2e6}
    records.insert(6, make_record(10.5, "devices_idle", attempt=2, joules=1.8e6, intensity=200.0, **idle))
    write(tmp_path, records)
    base = run_records()
    write(tmp_path / "released", base)
    added = cost_of(tmp_path, hourly(HOURLY)).amount - cost_of(tmp_path / "released", hourly(HOURLY)).amount
    assert added == pytest.approx(2.0 * 0.5)


def test_energy_of_the_cost_is_that_of_the_status(tmp_path):
    write(tmp_path, run_records())
    report = read_run_report(tmp_path, rates=Rates(build_prices(1.0), market_factor=50.0))
    assert report.cost.amount == pytest.approx(report.status.energy_kwh)
    assert report.market.gco2e == pytest.approx(50.0 * report.status.energy_kwh)


def test_every_format_has_the_cost(tmp_path):
    write(tmp_path, run_records())
    report = read_run_report(tmp_path, rates=Rates(hourly(HOURLY), "EUR", 50.0))
    assert "<dt>Electricity cost</dt><dd>0.5133 EUR</dd>" in html_page([report])
    assert "| Electricity cost | 0.5133 EUR |" in markdown([report])
    assert "| Emissions, market-based (stated factor of 50 gCO2e/kWh) | 213.9 gCO2e |" in markdown([report])
    record = json.loads(json.dumps(json_record(report), allow_nan=False))
    assert (record["cost"]["amount"], record["market"]["factor"]) == (report.cost.amount, 50.0)
    (row,) = csv.DictReader(io.StringIO(csv_text([report])))
    assert (float(row["cost"]), row["currency"]) == (report.cost.amount, "EUR")
    assert float(row["cost_saved"]) == pytest.approx(float(row["run_now_cost"]) - float(row["cost"]))


def test_report_without_prices_has_no_cost(tmp_path):
    write(tmp_path, run_records())
    report = read_run_report(tmp_path)
    assert (report.cost, report.market) == (None, None)
    assert "Electricity cost" not in html_page([report]) + markdown([report])


def test_cost_of_a_run_without_energy_is_absent(tmp_path):
    write(tmp_path, [make_record(0, "started", startup_s=0.0) | {"joules": {}}])
    assert cost_of(tmp_path, build_prices(0.3)) is None


def test_prices_finer_than_the_intervals_are_averaged_over_time(tmp_path):
    write(tmp_path, [make_record(0, "started", startup_s=0.0), make_record(1, "finished", joules=3.6e6)])
    quarters = [(at(0) + timedelta(minutes=15 * number), price) for number, price in enumerate([0.1, 0.2, 0.3, 0.6])]
    assert cost_of(tmp_path, PriceSeries.from_points(quarters)).amount == pytest.approx(0.3)
