"""Overhead of a step without a decision: the number of Python calls."""

import sys
from datetime import datetime, timezone

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import CarbonScheduler
from lightning_green.utilities.clock import SimulatedClock


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Count(pl.Callback):
    """Call the scheduler's hooks of a step and count the calls that they make."""

    def __init__(self, scheduler):
        self.scheduler, self.calls, self.states = scheduler, [], set()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx not in (30, 31, 32):
            return
        self.states.add(self.scheduler.session.recorder.status.state)
        called = []

        def note(frame, event, argument):
            if event == "call":
                called.append(frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name)

        before = self.scheduler._maker.next_decision
        sys.setprofile(note)
        try:
            self.scheduler.on_train_batch_start(trainer, pl_module, batch, batch_idx)
            self.scheduler.on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            self.scheduler._at_boundary("batch")
        finally:
            sys.setprofile(None)
        assert self.scheduler._maker.next_decision == before
        self.calls.append(called)


@pytest.mark.parametrize(("throttle", "most"), [(None, 13), ("0.75:0.9", 22)])
def test_step_without_decision_makes_few_calls(tmp_path, throttle, most):
    clock = SimulatedClock(datetime(2024, 5, 1, tzinfo=timezone.utc), seconds_per_batch=1.0)
    scheduler = CarbonScheduler(
        grid=400.0, zone="XX", meter=200.0, deadline="10h", on_pause="hold", throttle=throttle, clock=clock
    )
    count = Count(scheduler)
    pl.Trainer(
        max_steps=40, callbacks=[scheduler, count], accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    ).fit(Model(), DataLoader(TensorDataset(torch.ones(40, 2)), batch_size=1))  # fmt: skip
    assert count.states == {"running" if throttle is None else "throttled"}
    assert len(count.calls) == 3
    for called in count.calls:
        assert len(called) <= most, called
