import time
from datetime import timedelta

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint, ThroughputMonitor, Timer

from lightning_green._lightning.elapsed_time import (
    elapsed_times,
    exclude_pause,
    set_elapsed_times,
    validation_interval,
)
from tests.helpers.trainers import quiet_trainer


@pytest.mark.parametrize(("interval", "seconds"), [("00:00:01:30", 90.0), (timedelta(hours=1), 3600.0), (0.5, None)])
def test_validation_interval_is_in_seconds(tmp_path, interval, seconds):
    assert validation_interval(quiet_trainer(tmp_path, val_check_interval=interval)) == seconds


def test_elapsed_times_are_restored_relative_to_now(tmp_path, monkeypatch):
    trainer = quiet_trainer(tmp_path, ModelCheckpoint(), enable_checkpointing=True)
    assert elapsed_times(trainer) == {"validation": None, "checkpoints": [None]}
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    trainer._last_val_time, trainer.checkpoint_callback._last_time_checked = now - 5.0, now - 7.0
    saved = elapsed_times(trainer)
    assert [saved["validation"], *saved["checkpoints"]] == pytest.approx([5.0, 7.0])

    monkeypatch.setattr(time, "monotonic", lambda: now + 1000.0)
    other = quiet_trainer(tmp_path, ModelCheckpoint(), enable_checkpointing=True)
    set_elapsed_times(other, saved)
    assert other._last_val_time == pytest.approx(now + 995.0)
    assert other.checkpoint_callback._last_time_checked == pytest.approx(now + 993.0)


def test_pause_does_not_count_against_limits_of_wall_time(tmp_path):
    timer, monitor = Timer(timedelta(hours=1)), ThroughputMonitor(batch_size_fn=len)
    trainer = quiet_trainer(tmp_path, timer, monitor, ModelCheckpoint(), enable_checkpointing=True)
    exclude_pause(trainer, 100.0)  # nothing has started yet
    timer._start_time["train"] = 10.0
    timer._start_time["validate"], timer._end_time["validate"] = 10.0, 20.0
    stage = next(iter(monitor._t0s), None) or "train"
    monitor._t0s[stage] = 3.0
    trainer._last_val_time, trainer.checkpoint_callback._last_time_checked = 1.0, 2.0
    exclude_pause(trainer, 100.0)
    assert (timer._start_time["train"], timer._start_time["validate"]) == (110.0, 10.0)
    assert monitor._t0s[stage] == 103.0
    assert (trainer._last_val_time, trainer.checkpoint_callback._last_time_checked) == (101.0, 102.0)
