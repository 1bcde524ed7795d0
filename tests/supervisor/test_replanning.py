"""The supervisor plans an exited run again with the job and the forecasts of the training."""

import json
from datetime import timedelta

import pytest

from lightning_green.grid import grid_from_spec
from lightning_green.planning import FORECAST_ARCHIVE_FILE, ForecastArchive, Job, live_plan
from lightning_green.supervisor import waiting
from lightning_green.supervisor.run_directory import open_run_directory
from lightning_green.supervisor.supervisor import Supervisor
from tests.helpers.grids import START, MorningsLookClean
from tests.helpers.ledgers import read_records
from tests.supervisor.test_supervisor import FAKE, fake, paused_with_a_plan


@pytest.fixture(autouse=True)
def class_of_the_tests(monkeypatch):
    """Let a record name a class of the tests."""
    monkeypatch.setattr(waiting, "grid_from_record", grid_from_spec)


def test_supervisor_uses_delay_price_and_levels_of_the_job(tmp_path, monkeypatch):
    """The next clean morning is a day away. At 200 gCO2e per hour waiting for it does not pay."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE.parents[2]))
    run = tmp_path / "run"
    paused_with_a_plan(run, MorningsLookClean(promised=590.0).spec())
    ledger = next(run.glob("ledger*.jsonl"))
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    lines[-1]["job"] |= {"deadline": None, "delay_price": 200.0, "levels": ["1:1", "0.78:0.9"]}
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = open_run_directory(run, fresh=False, print_line=lambda line: None)
    try:
        assert Supervisor(fake("finish"), folder, print_line=lambda line: None).run() == 0
    finally:
        folder.unlock()
    records = read_records(run)
    decided = next(record for record in records if record["event"] == "decision")
    assert decided["action"] == "run"
    started = [record for record in records if record["event"] == "started"][-1]
    assert int(started["time_utc"][11:13]) < 10, "the original plan was to exit until ten"


@pytest.mark.parametrize("known", [False, True])
def test_supervisor_uses_the_forecasts_of_the_training(tmp_path, monkeypatch, known):
    """After four wrong mornings, a run that exited at midnight waits for noon instead of the morning."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE.parents[2]))
    grid, run = MorningsLookClean(), tmp_path / "run"
    paused_with_a_plan(run, grid.spec())
    if known:
        archive = ForecastArchive(run / FORECAST_ARCHIVE_FILE)
        for hour in range(-24 * 4, 0, 3):
            then = START + timedelta(hours=hour)
            live_plan(grid, Job(3.0, deadline=then + timedelta(hours=20)), archive, then)
    messages = []
    folder = open_run_directory(run, fresh=False, print_line=messages.append)
    try:
        code = Supervisor(fake("finish"), folder, print_line=messages.append).run()
    finally:
        folder.unlock()
    assert code == 0
    started = [record for record in read_records(run) if record["event"] == "started"][-1]
    assert int(started["time_utc"][11:13]) in (range(12, 17) if known else [6])
    kept = ForecastArchive(run / FORECAST_ARCHIVE_FILE).issuances("ZZ", "average/lifecycle")
    assert kept[-1].issued_at > START, "forecasts of the supervisor are stored for the training"
    assert (kept[0].issued_at < START) == known
