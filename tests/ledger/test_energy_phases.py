"""Energy by phase in the totals of the ledger, the loggers and the summary."""

import csv
import itertools
from datetime import datetime, timedelta, timezone

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, Dataset

from lightning_green import CarbonScheduler, EmissionsTracker
from lightning_green.ledger.power import energy_kwh, full_power, measured_hold_power, measured_resume_hours
from lightning_green.ledger.totals import PHASES
from lightning_green.utilities.clock import SimulatedClock
from tests.helpers.ledgers import read_records, total_of

START = datetime(2024, 5, 1, tzinfo=timezone.utc)
BATCH, FETCH, VALIDATION, CHECKPOINT, WATTS = 900.0, 300.0, 60.0, 120.0, 360.0


def event(seconds, phase, joules, state="running", waited=None, attempt=1, power=1.0, **fields):
    return {
        "time_utc": (START + timedelta(seconds=seconds)).isoformat(),
        "event": fields.pop("event", "sample"),
        "node": "n",
        "attempt": attempt,
        "phase": phase,
        "state": state,
        "power": power,
        "speed": 1.0,
        "joules": {"gpu": {"value": joules, "quality": "measured"}},
        **({} if waited is None else {"data_wait_s": waited}),
        **fields,
    }


def test_data_wait_has_the_waiting_share_of_training_energy():
    totals = total_of(
        [
            event(10, "training", 50, event="started", startup_s=10.0, waited=0.0),
            event(110, "training", 1050, waited=25.0),
            event(210, "validation", 2050, waited=75.0),
            event(310, "training", 2550, waited=80.0),  # the loaders of a validation do not count
            event(320, "training", 2650, waited=80.0),
        ]
    )
    expected = {"startup": 50.0, "training": 750.0 + 500.0 + 100.0, "data_wait": 750.0, "validation": 500.0}
    assert dict(totals.joules_by_phase) == pytest.approx(expected)
    assert sum(totals.joules_by_phase.values()) == pytest.approx(sum(totals.joules.values()))


def test_each_attempt_counts_waiting_from_zero_and_older_ledgers_have_none():
    totals = total_of(
        [
            event(0, "training", 0, event="started", startup_s=0.0, waited=0.0),
            event(100, "training", 100, waited=90.0),
            event(1100, "training", 7, attempt=2, event="started", startup_s=10.0, waited=4.0),
            event(1200, "training", 107, attempt=2, waited=54.0),
        ]
    )
    assert totals.joules_by_phase["restart"] == 7.0
    assert totals.joules_by_phase["data_wait"] == pytest.approx(90.0 + 50.0)
    old = total_of([event(0, "training", 0, event="started"), event(100, "training", 100)])
    assert dict(old.joules_by_phase) == {"startup": 0.0, "training": 100.0}


def test_full_power_is_training_power_at_any_level():
    totals = total_of(
        [
            event(60, "training", 60, event="started", startup_s=60.0),  # low power during a slow start
            event(70, "training", 3060, power=0.75),
            event(80, "training", 3060 + 2250, state="held"),
            event(180, "training", 99_000, power=1.0),
        ]
    )
    assert full_power(totals) == pytest.approx(300.0)
    assert full_power(total_of([event(0, "training", 0, event="started", startup_s=0.0)])) is None


class Slow(Dataset):
    """A dataset whose items take simulated time."""

    def __init__(self, clock, count, seconds):
        self.clock, self.count, self.seconds = clock, count, seconds

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.clock.sleep(self.seconds)
        return torch.ones(2)


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.layer(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_training_reports_energy_by_phase_everywhere(tmp_path):
    clock = SimulatedClock(START, BATCH, seconds_per_checkpoint=CHECKPOINT)

    def grid(at):
        return 900.0 if at < START + timedelta(hours=8) else 100.0

    tracker = EmissionsTracker(grid=grid, zone="XX", meter=WATTS)
    scheduler = CarbonScheduler(
        deadline="40h", on_pause="hold", hold_power=0.1, clock=clock, checkpoint_every="2h", min_saving=0.01
    )
    logger = CSVLogger(tmp_path / "csv")
    trainer = pl.Trainer(
        max_epochs=2, callbacks=[tracker, scheduler], accelerator="cpu", logger=logger, log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(
        Model(),
        DataLoader(Slow(clock, 12, FETCH), batch_size=1),
        DataLoader(Slow(clock, 3, VALIDATION), batch_size=1),
    )
    summary = tracker.summary()
    (ledger,) = tmp_path.rglob("ledger.*.jsonl")
    records = read_records(ledger.parent)

    saved = sum(record["event"] == "checkpoint" for record in records)
    held = sum(
        (datetime.fromisoformat(after["time_utc"]) - datetime.fromisoformat(before["time_utc"])).total_seconds()
        for before, after in itertools.pairwise(records)
        if before["state"] == "held"
    )
    assert saved >= 2
    assert held > 3600.0
    expected = {
        "training": 24 * BATCH,
        "data_wait": 24 * FETCH,
        "validation": 2 * 3 * VALIDATION,
        "checkpoint": saved * CHECKPOINT,
        "held": held * 0.1,
        "startup": 0.0,
        "restart": 0.0,
    }
    found = {phase: summary[f"energy/{phase}_kwh"] * 3.6e6 / WATTS for phase in PHASES}
    assert found == pytest.approx(expected, abs=1.0)
    assert sum(found.values()) * WATTS / 3.6e6 == pytest.approx(summary["energy/kwh"], rel=1e-6)
    assert energy_kwh(total_of(records))["energy/data_wait_kwh"] == pytest.approx(summary["energy/data_wait_kwh"])

    logger.save()
    with open(f"{logger.log_dir}/metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("energy/kwh")]
    for row in rows:
        phases = sum(float(row[f"energy/{phase}_kwh"]) for phase in PHASES)
        assert phases == pytest.approx(float(row["energy/kwh"]), rel=1e-6, abs=1e-9)
    assert float(rows[-1]["energy/data_wait_kwh"]) == pytest.approx(summary["energy/data_wait_kwh"], rel=1e-6)
    assert float(rows[-1]["energy/held_kwh"]) > 0.0
    assert trainer.fit_loop.epoch_loop.__dict__.keys().isdisjoint({"_on_before_fetch", "_on_after_fetch"})


def measured(*events):
    return total_of([event(0, "training", 0, event="started", startup_s=0.0), *events])


def test_hold_and_resume_cost_are_fractions_of_full_power_at_any_level():
    # 300 W at full power, at a level of 0.75 for most of the time; 75 W while held; 90 kJ for one exit and return
    events = [
        event(40, "training", 12_000, power=0.75, state="throttled"),
        event(140, "held", 12_000 + 22_500, state="held"),
        event(260, "restart", 34_500 + 9_000),
        event(260, "restart", 43_500, event="paused"),
        event(5000, "training", 90_000, attempt=2, event="started", startup_s=30.0),
    ]
    totals = measured(*events)
    assert full_power(totals) == pytest.approx(300.0)
    assert measured_hold_power(totals) == pytest.approx(0.25)
    assert measured_resume_hours(totals) == pytest.approx(90_000 / 300.0 / 3600.0)


def test_modeled_or_rarely_measured_cost_is_not_used():
    short = measured(event(100, "held", 30_000, state="held"), event(130, "training", 31_000))
    assert measured_hold_power(short) is None
    seen = [event(100, "held", 30_000, state="held"), event(200, "training", 37_500)]
    assert measured_hold_power(measured(*seen)) == pytest.approx(0.25)
    for one in seen:
        one["joules"]["gpu"]["quality"] = "modelled"
    assert measured_hold_power(measured(*seen)) is None
    assert measured_resume_hours(measured(*seen)) is None
