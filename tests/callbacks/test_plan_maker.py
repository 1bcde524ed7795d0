"""The plans of the scheduler use forecasts that are corrected with its own earlier forecasts."""

import json
from datetime import datetime, timedelta, timezone

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.demos.boring_classes import RandomDataset

from lightning_green import CarbonScheduler
from lightning_green.grid.signal import GridSignal, Reading, SignalKind
from lightning_green.planning import Forecast
from lightning_green.utilities.clock import SimulatedClock

START = datetime(2024, 5, 1, tzinfo=timezone.utc)


class BiasedGrid(GridSignal):
    """A grid of 200 gCO2e/kWh with forecasts that are too high by ``bias``."""

    kind, zone, source = SignalKind(), "ZZ", "biased"

    def __init__(self, bias):
        self.bias = bias

    def intensity(self, at):
        return Reading(200.0, self.kind, self.source, self.zone, measured_at=at)

    def forecast(self, now, horizon):
        hour = now.replace(minute=0, second=0, microsecond=0)
        history = [hour - timedelta(hours=back) for back in range(8 * 24, 0, -1)]
        ahead = [hour + timedelta(hours=lead) for lead in range(96)]
        return Forecast(
            ahead, [200.0 + self.bias] * 96, issued_at=now, history_times=history, history_values=[200.0] * len(history)
        )


class StopAfter(pl.Callback):
    """Stops the training early, with remaining work to plan."""

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step >= 36


class LinearModel(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("bias", [0.0, 100.0])
def test_bias_of_the_signal_is_reduced_after_some_hours(tmp_path, bias):
    scheduler = CarbonScheduler(
        grid=BiasedGrid(bias), deadline="48h", on_pause="hold", meter=None, clock=SimulatedClock(START, 1200.0)
    )
    trainer = pl.Trainer(
        max_steps=72, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[scheduler, StopAfter()], default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(LinearModel(), torch.utils.data.DataLoader(RandomDataset(4, 64)))
    expected = scheduler.plan.slots[-1].intensity
    assert expected == pytest.approx(200.0, abs=1e-6 + 0.6 * bias)


def test_decisions_follow_the_price_and_report_both(tmp_path):
    prices = tmp_path / "prices.csv"
    rows = [f"{(START + timedelta(hours=hour)).isoformat()},{0.1 if hour >= 6 else 0.4}" for hour in range(48)]
    prices.write_text("\n".join(["datetime,price", *rows]))
    scheduler = CarbonScheduler(
        grid=BiasedGrid(0.0),
        deadline="48h",
        on_pause="hold",
        hold_power=0.01,
        meter=1000.0,
        clock=SimulatedClock(START, 1200.0),
        price=str(prices),
        carbon_price=0.1,
    )
    assert scheduler.settings()["price"] == "prices prices.csv"
    trainer = pl.Trainer(
        default_root_dir=tmp_path, max_steps=6, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[scheduler],
    )  # fmt: skip
    trainer.fit(LinearModel(), torch.utils.data.DataLoader(RandomDataset(4, 64), batch_size=1))
    events = [event for file in tmp_path.rglob("ledger.*.jsonl") for event in map(json.loads, file.open())]
    reasons = [event["reason"] for event in events if event["event"] == "decision" and event["action"] == "hold"]
    assert reasons[0].startswith("Hold until 06:00 UTC: 200.0 -> 200.0 gCO2e/kWh for the remaining work, emits about")
    assert "; electricity cost " in reasons[0]
    assert trainer.global_step == 6
