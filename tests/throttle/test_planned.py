"""Trainings whose planner sets stated levels, on a simulated clock with a device in a directory."""

import csv
from datetime import datetime, timedelta, timezone

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import CarbonScheduler, EmissionsTracker
from lightning_green.planning import Level
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
from lightning_green.utilities.clock import SimulatedClock
from tests.helpers.ledgers import read_records
from tests.helpers.powercap import limits, packages

START = datetime(2024, 5, 1, tzinfo=timezone.utc)
CLEAN, DIRTY, WATTS = 100.0, 600.0, 200.0
POWER, SPEED = 0.75, 0.9


def trace(path):
    """Write a trace of five days with six clean and six dirty hours in turn."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["datetime", "carbon_intensity"])
        for hour in range(120):
            rows.writerow([(START + timedelta(hours=hour)).isoformat(), CLEAN if hour // 6 % 2 == 0 else DIRTY])
    return str(path)


def intensity(at):
    return CLEAN if (at - START) // timedelta(hours=6) % 2 == 0 else DIRTY


class Model(pl.LightningModule):
    """Record the power limit of the package in each step."""

    def __init__(self, folder):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.folder, self.seen = folder, []

    def training_step(self, batch, batch_idx):
        if self.folder is not None:
            self.seen.append(limits(self.folder)[0])
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(tmp_path, model, batches=96, on_pause="hold", **scheduling):
    tracker = EmissionsTracker(grid=trace(tmp_path / "trace.csv"), zone="XX", meter=WATTS)
    scheduler = CarbonScheduler(
        on_pause=on_pause, hold_power=1.0, clock=SimulatedClock(START, seconds_per_batch=900.0), **scheduling
    )
    pl.Trainer(
        max_steps=batches, callbacks=[tracker, scheduler], accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path / "root",
    ).fit(model, DataLoader(TensorDataset(torch.ones(batches, 2)), batch_size=1))  # fmt: skip
    (ledger,) = (tmp_path / "root").rglob("ledger.*.jsonl")
    return tracker.summary(), read_records(ledger.parent)


def intervals(records):
    """Return (begin, end, joules, state, level) of each interval between two events of the ledger."""
    before, found = None, []
    for record in records:
        if "joules" not in record:
            continue
        if before is not None:
            joules = record["joules"]["other"]["value"] - before["joules"]["other"]["value"]
            begin, end = (datetime.fromisoformat(each["time_utc"]) for each in (before, record))
            found.append((begin, end, joules, before["state"], (before["power"], before["speed"])))
        before = record
    return found


def grams(records):
    """Return the emissions in gCO2e, integrated over the trace in steps of five minutes."""
    found = 0.0
    for begin, end, joules, _, _ in intervals(records):
        at = begin
        while at < end:
            stop = min(end, at + timedelta(minutes=5))
            found += joules * ((stop - at) / (end - begin)) / 3.6e6 * intensity(at + (stop - at) / 2)
            at = stop
    return found


def test_planner_throttles_training_with_distant_deadline(tmp_path):
    folder = packages(tmp_path / "powercap", watts=(200,))
    model = Model(folder)
    summary, records = train(
        tmp_path, model, deadline="72h", throttle=[RaplPowerLimit(powercap=folder), f"{POWER}:{SPEED}"]
    )
    # full power while the step time is measured, then the level, then the original state
    first = model.seen.index(150.0)
    assert first <= 6
    assert set(model.seen[first:]) == {150.0}
    assert limits(folder) == [200.0]
    assert list((tmp_path / "root").rglob("throttle.*")) == []
    (entered,) = [record for record in records if record.get("state") == "throttled" and record["event"] == "state"]
    assert (entered["power"], entered["speed"], entered["level"]) == (POWER, SPEED, f"{POWER:g}:{SPEED:g}")
    decisions = [record for record in records if record["event"] == "decision"]
    assert {record["level"] for record in decisions} == {f"{POWER:g}:{SPEED:g}"}
    # time and energy of the throttled batches
    throttled = [(end - begin, joules) for begin, end, joules, state, _ in intervals(records) if state == "throttled"]
    seconds = sum((took for took, _ in throttled), timedelta()).total_seconds()
    assert seconds == pytest.approx((96 - first) * 900.0 / SPEED, abs=900.0)
    assert sum(joules for _, joules in throttled) == pytest.approx(seconds * WATTS * POWER, rel=1e-6)
    assert summary["carbon/gco2e"] == pytest.approx(grams(records), rel=1e-3)
    assert summary["carbon/gco2e"] < summary["carbon/counterfactual_gco2e"]
    energy = (first + (96 - first) * POWER / SPEED) * 900.0 * WATTS / 3.6e6
    assert summary["energy/kwh"] == pytest.approx(energy, rel=0.01)


def test_level_follows_intensity_with_delay_price(tmp_path):
    folder = packages(tmp_path / "powercap", watts=(200,))
    model = Model(folder)
    # 60 gCO2e per hour is 300 per kW: throttling pays if (0.75 c + 300) / 0.9 < c + 300, so above 200 gCO2e/kWh
    summary, records = train(
        tmp_path, model, throttle=[RaplPowerLimit(powercap=folder), f"{POWER}:{SPEED}"], delay_price=60.0
    )
    assert set(model.seen) == {200.0, 150.0}
    assert limits(folder) == [200.0]
    hours = {CLEAN: {"running": 0.0, "throttled": 0.0}, DIRTY: {"running": 0.0, "throttled": 0.0}}
    for begin, end, _, state, _ in intervals(records):
        hours[intensity(begin + (end - begin) / 2)][state] += (end - begin) / timedelta(hours=1)
    assert hours[CLEAN]["throttled"] < 0.06 * hours[CLEAN]["running"]  # a batch may extend into the next hour
    assert hours[DIRTY]["running"] < 0.06 * hours[DIRTY]["throttled"]
    assert hours[DIRTY]["throttled"] > 9.0
    assert summary["carbon/gco2e"] == pytest.approx(grams(records), rel=1e-3)
    assert summary["carbon/gco2e"] < summary["carbon/counterfactual_gco2e"]
    assert {record.get("deadline") for record in records if record["event"] == "decision"} == {None}


def test_planned_exit_restores_device_and_records_levels(tmp_path):
    folder = packages(tmp_path / "powercap", watts=(200,))
    model = Model(folder)
    with pytest.raises(SystemExit) as left:
        train(
            tmp_path, model, on_pause="exit", deadline="96h", resume_cost=0.0,
            throttle=[RaplPowerLimit(powercap=folder), f"{POWER}:{SPEED}"],
        )  # fmt: skip
    assert left.value.code == 75
    assert model.seen[-1] == 150.0
    assert limits(folder) == [200.0]
    (ledger,) = (tmp_path / "root").rglob("ledger.*.jsonl")
    records = read_records(ledger.parent)
    (paused,) = [record for record in records if record["event"] == "paused"]
    assert (paused["power"], paused["state"]) == (1.0, "running")
    assert [Level.parse(text) for text in paused["job"]["levels"]] == [Level(1.0, 1.0), Level(POWER, SPEED)]
    assert list(ledger.parent.glob("throttle.*")) == []


def test_high_delay_price_prevents_throttling_and_stated_level_needs_no_device(tmp_path):
    summary, records = train(tmp_path, Model(None), throttle="0.75:0.9", delay_price=100_000.0)
    assert all(record["state"] == "running" for record in records)
    assert summary["carbon/saving_pct"] == pytest.approx(0.0, abs=1e-6)
    (tmp_path / "cheap").mkdir()
    summary, records = train(tmp_path / "cheap", Model(None), throttle="0.75:0.9", delay_price=0.1)
    assert summary["energy/kwh"] == pytest.approx(24 * 0.2 * POWER / SPEED, rel=0.02)
    assert any(record["state"] == "throttled" for record in records)


def test_delay_price_without_meter_warns(tmp_path):
    scheduler = CarbonScheduler(
        grid=trace(tmp_path / "trace.csv"), zone="XX", meter=None, delay_price=5.0, throttle="0.75:0.9",
        clock=SimulatedClock(START, seconds_per_batch=900.0),
    )  # fmt: skip
    trainer = pl.Trainer(
        max_steps=12, callbacks=[scheduler], accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path / "root",
    )  # fmt: skip
    with pytest.warns(UserWarning, match="`delay_price` is not used: without a meter"):
        trainer.fit(Model(None), DataLoader(TensorDataset(torch.ones(12, 2)), batch_size=1))


@pytest.mark.parametrize("price", [-1.0, "60", float("nan"), True])
def test_invalid_delay_price_raises(price):
    with pytest.raises(ValueError, match="`delay_price` should be a number of at least 0 gCO2e per hour"):
        CarbonScheduler(delay_price=price)
