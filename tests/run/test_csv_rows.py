"""Rows of a real ``CSVLogger`` over several starts of a run: each once, whatever the names of the metrics are."""

import csv

import lightning.pytorch as pl
import pytest
from lightning.pytorch.loggers import CSVLogger

from lightning_green import EmissionsTracker, ExactResume
from lightning_green.run.coordinator import close_current_run
from lightning_green.run.csv_rows import count_rows, drop_rows, keep_rows
from tests.callbacks import green_kit
from tests.callbacks.green_kit import BATCHES, WATTS, clock, train
from tests.helpers.interrupted_fits import Interrupt

NAMES = ["loss", "acc, top-1", 'the "best"', "two\nlines", "a\r\nb", "", " padded ", "größe", "'", "a;b\tc"]


def table(folder):
    """Return the columns and the rows of the only CSV file of a folder."""
    (path,) = folder.rglob("metrics.csv")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, restkey="too many", restval="too few")
        rows = list(reader)
    assert all("too many" not in row and "too few" not in row.values() for row in rows)
    return reader.fieldnames, rows


def logged(folder, name="loss", continued=True, steps=()):
    """Log some steps as one process; return the trainer."""
    logger = CSVLogger(folder, name="csv", version=0)
    if continued:
        keep_rows(logger)
    trainer = pl.Trainer(accelerator="cpu", logger=logger, enable_checkpointing=False)
    for step in steps:
        logger.log_metrics({name: float(step)}, step)
    logger.save()
    return trainer


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_metric_may_have_any_name(tmp_path, name):
    logged(tmp_path, name, continued=False, steps=[0, 1])
    logged(tmp_path, name, steps=[2])
    logged(tmp_path, f"{name} 2", steps=[3])  # a new column
    columns, rows = table(tmp_path)
    assert sorted(columns) == sorted([name, f"{name} 2", "step"])
    assert [(row["step"], row[name], row[f"{name} 2"]) for row in rows] == [
        ("0", "0.0", ""),
        ("1", "1.0", ""),
        ("2", "2.0", ""),
        ("3", "", "3.0"),
    ]


@pytest.mark.parametrize("lost", range(1, 8))
def test_row_torn_by_a_kill_is_dropped_and_not_glued_to_the_next(tmp_path, lost):
    logged(tmp_path, "a,b", continued=False, steps=[0, 1, 2])
    (path,) = tmp_path.rglob("metrics.csv")
    path.write_bytes(path.read_bytes()[:-lost])
    logged(tmp_path, "a,b", steps=[3])
    assert [row["step"] for row in table(tmp_path)[1]] == ["0", "1", "3"]


@pytest.mark.parametrize("size", [0, 1, 4, 7, 8])
def test_torn_header_is_written_again(tmp_path, size):
    logged(tmp_path, 'a"\n,b', continued=False, steps=[0])
    (path,) = tmp_path.rglob("metrics.csv")
    path.write_bytes(path.read_bytes()[:size])
    logged(tmp_path, "c", steps=[1])
    assert table(tmp_path)[1] == [{"c": "1.0", "step": "1"}]


def test_file_moved_by_a_killed_process_is_found(tmp_path):
    logged(tmp_path, continued=False, steps=[0])
    (path,) = tmp_path.rglob("metrics.csv")
    path.rename(f"{path}.continued")
    logged(tmp_path, steps=[1])
    assert [row["step"] for row in table(tmp_path)[1]] == ["0", "1"]


@pytest.mark.parametrize(("kept", "steps"), [(0, []), (2, ["0", "1"]), (3, ["0", "1", "2"]), (9, ["0", "1", "2"])])
def test_rows_after_the_restored_state_are_dropped(tmp_path, kept, steps):
    logged(tmp_path, "a,b", continued=False, steps=[0, 1])
    trainer = logged(tmp_path, "c", steps=[2])  # the header has changed since the second row
    (path,) = map(str, tmp_path.rglob("metrics.csv"))
    drop_rows(trainer, {path: kept})
    assert [row["step"] for row in table(tmp_path)[1]] == steps
    trainer.logger.log_metrics({"a,b": 1.0, "c": 1.0}, 7)
    assert count_rows(trainer) == {path: len(steps) + 1}
    assert [row["step"] for row in table(tmp_path)[1]] == [*steps, "7"]


@pytest.mark.parametrize("kept", [{}, {"other.csv": 0}, {"": "0"}, {"": None}])
def test_unknown_number_of_rows_drops_nothing(tmp_path, kept):
    trainer = logged(tmp_path, continued=False, steps=[0, 1])
    path = str(next(tmp_path.rglob("metrics.csv")))
    drop_rows(trainer, {name or path: rows for name, rows in kept.items()})
    assert [row["step"] for row in table(tmp_path)[1]] == ["0", "1"]


def test_file_that_cannot_be_read_is_not_counted(tmp_path, caplog, monkeypatch):
    def fail():
        raise OSError("no such device")

    trainer = logged(tmp_path, continued=False, steps=[0, 1])
    monkeypatch.setattr(trainer.logger, "save", fail)
    assert count_rows(trainer) == {}
    assert "cannot be counted (no such device)" in caplog.text


class Net(green_kit.Net):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log('acc, "top-1"', loss)
        self.log("epoch, mean", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val, loss", self.net(batch[0]).mean())


class Fail(pl.Callback):
    """An error during a batch, without a saved state, as at a kill."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise RuntimeError("killed")


def fit(folder, *callbacks, flush=1, metered=False):
    """Start or continue the fit of a directory; a state is saved every five of its 24 batches."""
    callbacks = [ExactResume(every="50m"), *([EmissionsTracker(meter=WATTS)] if metered else []), *callbacks]
    logger = CSVLogger(folder, name="csv", flush_logs_every_n_steps=flush)
    try:
        train(folder, *callbacks, validate=True, logger=logger, val_check_interval=4)
    except (RuntimeError, SystemExit):
        pass
    finally:
        close_current_run()


@pytest.fixture
def whole(monkeypatch, tmp_path):
    """Set up the environment of the fits; return the table of one that is never stopped."""
    monkeypatch.setattr(green_kit, "Net", Net)
    monkeypatch.setenv("LIGHTNING_GREEN_CLOCK", clock().spec())
    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
    fit(tmp_path / "whole")
    return table(tmp_path / "whole")


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("flush", [1, 100])
@pytest.mark.parametrize(
    "stops",
    [[Fail(3)], [Fail(5)], [Fail(9), Fail(17)], [Interrupt(7)], [Fail(2), Interrupt(13), Fail(20)]],
    ids=lambda stops: "-".join(f"{type(stop).__name__}{stop.step}" for stop in stops),
)
def test_stopped_training_has_the_rows_of_one_that_never_stopped(tmp_path, whole, stops, flush):
    for stop in stops:
        fit(tmp_path / "stopped", stop, flush=flush)
    fit(tmp_path / "stopped", flush=flush)
    assert table(tmp_path / "stopped") == whole


def test_steps_of_the_tracker_are_logged_once_and_energy_grows(tmp_path, whole):
    for stop in (Fail(9), Interrupt(13)):
        fit(tmp_path / "stopped", stop, metered=True)
    fit(tmp_path / "stopped", metered=True)
    _, rows = table(tmp_path / "stopped")
    metered = [row for row in rows if row["energy/kwh"]]
    assert [int(row["step"]) for row in metered] == [*range(BATCHES), BATCHES]
    energy = [float(row["energy/kwh"]) for row in metered]
    assert energy == sorted(energy)
    assert energy[5] - energy[4] > 4 * (energy[4] - energy[3])  # the four lost batches stay in the total
