"""A training on simulated time with services that fail for a day; started by test_day_of_faults.py.

Two live sources and their fake services run in this process and use real HTTP. When simulated time advances, the
services follow, their fault changes every hour, and the sources request what is due, as the polling thread does in real
time.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_green import CarbonScheduler, EmissionsTracker, SimulatedClock
from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.providers.electricity_maps import ElectricityMapsSignal
from lightning_green.grid.providers.energy_charts import EnergyChartsSignal
from lightning_green.utilities.http.transport import Limits
from tests.helpers.fake_grid import FakeGrid

START = datetime(2026, 1, 15, 16, 0, tzinfo=timezone.utc)
WATTS, HOLD_POWER = 300.0, 0.1
PIECE = 300.0

# hours after the start -> faults of Electricity Maps and energy-charts, until the next entry
DAY = {
    0: (None, None),
    1: ("500", None),
    3: ("silent", "silent"),
    4: ("wrong_zone", "html_200"),
    6: ("sandbox", "truncated"),
    7: ("429_retry_after", "429"),
    10: ("401_html", "null"),
    12: ("duplicates", "unordered"),
    14: ("null_newest", "null_newest"),
    15: ("reset", "reset"),
    17: ("too_large", "deep"),
    18: ("redirect_away", "404"),
    19: ("slow_drip", "not_json"),
    20: (None, "502_html"),
    21: ("403", "empty"),
    23: ("local_times", "short_forecast"),
    25: (None, None),
}


def truth(at: datetime) -> float:
    """Return the true intensity in gCO2e/kWh: different in each hour, low from 10:00 to 15:00 UTC."""
    hour = at.timestamp() // 3600
    return (140.0 if 10 <= hour % 24 < 15 else 460.0) + 13.0 * (hour % 7)


def faults(at: datetime, begins: int = 0) -> dict[str | None, str | None]:
    """Return the faults of the services at ``at``; all fail in the first ``begins`` hours."""
    hours = (at - START).total_seconds() / 3600
    if hours < begins:
        return {None: "500"}
    em, charts = DAY[max(hour for hour in DAY if hour <= max(hours, 0.0))]
    return {"em": em, "charts": charts}


class ServedClock(SimulatedClock):
    """A simulated clock that the services and the polling follow."""

    def __init__(self, grid: FakeGrid, signals: list, begins: int) -> None:
        self.grid, self.signals, self.begins = grid, signals, begins
        super().__init__(START, seconds_per_batch=600.0, seconds_per_checkpoint=30.0, seconds_per_restart=120.0)

    def _move(self, seconds: float) -> None:
        left = seconds
        while True:
            piece = min(PIECE, left)
            super()._move(piece)
            left -= piece
            now = self.now()
            self.grid.now, self.grid.faults = now, faults(now, self.begins)
            for signal in self.signals:
                signal.refresh(now)
            if left <= 0.0:
                return


class Noisy(Dataset):
    """Samples with noise, so that a wrong random state changes the weights."""

    def __init__(self) -> None:
        self.rows = torch.randn(96, 8, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.rows[index] + 0.1 * torch.randn(8) + float(np.random.rand()) * 0.1 + random.random() * 0.1


class Model(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 1))

    def training_step(self, batch, batch_idx):
        loss = self.net(batch).square().mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("validation", self.net(batch).mean())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 1e-2)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)]


def main(folder: Path, mode: str) -> None:
    os.environ["LIGHTNING_GREEN_CACHE_DIR"] = str(folder / "cache")
    pl.seed_everything(1)
    torch.set_num_threads(1)
    port = folder / "port"  # the same after a restart, so that the cached addresses are valid
    with FakeGrid(START, truth, port=int(port.read_text()) if port.exists() else 0) as grid:
        port.write_text(str(grid.port))
        em = ElectricityMapsSignal("DE", url=grid.url("em"))
        charts = EnergyChartsSignal("DE", url=grid.url("charts"))
        for signal in (em, charts):
            signal.fetcher.limits = Limits(connect=0.5, read=0.25, total=0.4, attempts=2, wait=0.001, patience=0.01)
            signal.start = signal.poller.start = lambda: None  # the clock polls
            signal.poller.wait_for_first_answer = lambda seconds: True
        chain = ChainSignal(em, fallback=[charts])
        clock = ServedClock(grid, [em, charts], begins=2 if mode == "blind" else 0)
        chain.bind_clock(clock.now)
        tracker = EmissionsTracker(meter=WATTS)
        scheduler = CarbonScheduler(
            grid=chain,
            deadline=None if mode == "reference" else timedelta(hours=30),
            hold_power=HOLD_POWER,
            resume_cost=0.1,
            on_pause="hold" if mode == "hold" else "auto",
            checkpoint_every="2h",
            clock=clock,
        )
        trainer = pl.Trainer(
            max_epochs=4,
            accelerator="cpu",
            callbacks=[tracker, scheduler],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        model = Model()
        trainer.fit(model, DataLoader(Noisy(), batch_size=8, shuffle=True), DataLoader(Noisy(), batch_size=48))
        weights = hashlib.sha256()
        for tensor in model.state_dict().values():
            weights.update(tensor.numpy().tobytes())
        result = {"weights": weights.hexdigest(), "steps": trainer.global_step, "summary": tracker.summary()}
        result["requests"] = len(grid.requests)
        (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
