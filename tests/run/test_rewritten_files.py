"""Files that are rewritten while a run resumes."""

import json
import sys
import threading
import time
from datetime import timedelta

import pytest

from lightning_green import CarbonScheduler, EmissionsTracker, EnergyBudget
from lightning_green.ledger.events import BudgetChecked, Decision, Sample, Started
from lightning_green.ledger.measurement import Measurement
from lightning_green.ledger.run_directory import RESTARTED_VARIABLE, RESUME_VARIABLE, RUN_DIR_VARIABLE
from lightning_green.planning import Job, PriceSeries
from lightning_green.run import rewritten_files
from lightning_green.run.rewritten_files import build_grid_of_run, while_rewritten
from tests.helpers.traces import CLOCK, START, write_trace
from tests.helpers.user_scripts import runs, supervised


def test_incomplete_file_is_read_again_under_a_supervisor(tmp_path, monkeypatch):
    monkeypatch.setenv(RESUME_VARIABLE, "1")
    path = tmp_path / "value"
    path.write_text("")

    def complete():
        time.sleep(0.5)
        path.write_text("3.5")

    writer = threading.Thread(target=complete)
    writer.start()
    assert while_rewritten(lambda: float(path.read_text())) == 3.5
    writer.join()


def test_error_is_raised_at_once_without_one(tmp_path, monkeypatch):
    monkeypatch.delenv(RESUME_VARIABLE, raising=False)
    calls = []
    with pytest.raises(ValueError, match="could not convert"):
        while_rewritten(lambda: calls.append(1) or float(""))
    assert calls == [1]


@pytest.fixture
def restart(tmp_path, monkeypatch):
    """The environment of a start that the supervisor makes by itself, without waiting for files."""
    monkeypatch.setattr(rewritten_files, "SECONDS", 0.0)
    monkeypatch.setenv(RESUME_VARIABLE, "1")
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path / "run"))
    monkeypatch.setenv(RESTARTED_VARIABLE, "1")
    return tmp_path / "run"


def write(folder, *events):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(event.to_json()) for event in events]
    (folder / "ledger.a.jsonl").write_text("\n".join(lines) + "\n")


def decided(hour, price, pue=1.0):
    return Decision(
        time_utc=f"2024-05-02T{hour:02d}:00:00+00:00",
        job=Job(1.0, prices=PriceSeries(constant=price)).to_json(),
        measured=Measurement({}, pue=pue),
    )


def test_last_recorded_prices_replace_a_file_that_is_gone(restart, caplog):
    write(restart, decided(1, 0.1), decided(2, 0.2))
    write(restart / "runs" / "fold-1", decided(3, 0.3), Sample(time_utc="2024-05-02T04:00:00+00:00"))
    (restart / "runs" / "fold-1" / "run.json").write_text("{}")
    scheduler = CarbonScheduler("typical:DE", "36h", price=restart / "prices.csv", carbon_price=0.1)
    assert scheduler.settings()["price"] == "0.3 per kWh"
    assert "that exists" in caplog.text
    assert "continues with the last recorded prices" in caplog.text


def test_prices_of_a_budget_replace_a_file_that_is_gone(restart, caplog):
    checked = BudgetChecked(time_utc="2024-05-02T02:00:00+00:00", prices=PriceSeries(constant=0.4).to_json())
    write(restart, decided(1, 0.1), checked)
    assert EnergyBudget(cost=3.0, price=str(restart / "prices.csv")).settings()["price"] == "0.4 per kWh"
    assert "continues with the last recorded prices" in caplog.text


def test_last_recorded_pue_replaces_a_file_that_is_gone(restart, caplog):
    write(restart, decided(1, 0.1, pue=1.3), decided(2, 0.1, pue=1.25))
    assert EmissionsTracker(pue=str(restart / "pue.csv"))._options.pue == 1.25
    assert "continues with the last recorded PUE" in caplog.text


def test_missing_trace_means_no_waiting(restart, caplog):
    write(restart, Started(signal="a digest", time_utc="2024-05-02T04:00:00+00:00"))
    CarbonScheduler(str(restart / "trace.csv"), "36h")
    assert build_grid_of_run(str(restart / "trace.csv"), None) is None
    assert caplog.text.count("the run does not wait and its emissions are unknown") == 1


@pytest.mark.parametrize("grid", ["typicak:DE", "trace.csv"])
def test_wrong_grid_of_a_command_that_has_not_trained_is_an_error(restart, grid):
    with pytest.raises((ValueError, FileNotFoundError)):
        build_grid_of_run(grid, None)
    with pytest.raises((ValueError, FileNotFoundError)):
        CarbonScheduler(grid, "36h")


def test_missing_files_are_errors_while_somebody_is_present(restart, monkeypatch):
    write(restart, decided(1, 0.1, pue=1.3), Started(signal="a digest", time_utc="2024-05-02T04:00:00+00:00"))
    monkeypatch.delenv(RESTARTED_VARIABLE)
    with pytest.raises(FileNotFoundError, match="price"):
        CarbonScheduler("typical:DE", "36h", price=restart / "prices.csv", carbon_price=0.1)
    with pytest.raises(FileNotFoundError, match="pue"):
        EmissionsTracker(pue=str(restart / "pue.csv"))
    with pytest.raises(FileNotFoundError, match=r"trace\.csv"):
        CarbonScheduler(str(restart / "trace.csv"), "36h")


def test_missing_prices_without_a_record_are_an_error(restart):
    with pytest.raises(FileNotFoundError, match="price"):
        CarbonScheduler("typical:DE", "36h", price=restart / "prices.csv", carbon_price=0.1)


SCRIPT = """
import os
import lightning.pytorch as pl
from torch.utils.data import DataLoader
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
from lightning_green import CarbonScheduler, EmissionsTracker

scheduler = CarbonScheduler("trace.csv", "24h", price="prices.csv", carbon_price=0.1)
tracker = EmissionsTracker(grid="trace.csv", pue="pue.csv", meter=100.0)


class Model(BoringModel):
    def on_train_start(self):
        for name in ("trace.csv", "prices.csv", "pue.csv"):
            if os.path.exists(name):
                os.remove(name)


pl.seed_everything(0, verbose=False)
trainer = pl.Trainer(max_epochs=1, callbacks=[scheduler, tracker], logger=False, enable_progress_bar=False,
                     accelerator="cpu", enable_model_summary=False)
trainer.fit(Model(), DataLoader(RandomDataset(32, 12)))
"""


@pytest.mark.slow
def test_run_whose_files_vanish_during_an_exit_is_completed(tmp_path):
    write_trace(tmp_path / "trace.csv", [600] * 3 + [50] * 20)
    for name, column, value in (("prices", "price", 0.3), ("pue", "pue", 1.2)):
        rows = [f"{START + timedelta(hours=hour):%Y-%m-%dT%H:%M:%SZ},{value}" for hour in range(48)]
        (tmp_path / f"{name}.csv").write_text("\n".join([f"datetime,{column}", *rows]) + "\n")
    (tmp_path / "train.py").write_text(SCRIPT)
    code, output = supervised(tmp_path, sys.executable, "train.py", options=["--clock", CLOCK])
    assert code == 0, output
    (records,) = runs(tmp_path / "run")
    assert [record["event"] for record in records if record["event"] in ("started", "paused", "finished")] == [
        "started", "paused", "started", "finished",
    ]  # fmt: skip
    assert [record["pue"] for record in records if record["event"] == "started"] == [1.2, 1.2]
    assert max(record.get("global_step") or 0 for record in records) == 12
    for message in ("the last recorded prices", "the last recorded PUE", "the run does not wait"):
        assert message in output
