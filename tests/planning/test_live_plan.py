"""One way to make a plan, for the training and for the supervisor that waits for it."""

import json
import sys
from dataclasses import replace
from datetime import timedelta

import pytest

from lightning_green.ledger.ledger import read_ledger
from lightning_green.planning import ISSUES_FILE, Forecast, Issues, Job, Level, live_plan, plan
from lightning_green.planning.forecasting import correct
from lightning_green.planning.live import job_from_record, job_record
from lightning_green.supervisor.supervisor import Supervisor, open_folder
from tests.planning.grids import START, MorningsLookClean
from tests.supervisor.test_supervisor import CLOCK, FAKE, paused_with_a_plan

KIND = "average/lifecycle"


def job(now, work=3.0, window=20.0, **kwargs):
    return Job(work, deadline=now + timedelta(hours=window), **kwargs)


def test_it_is_the_plan_of_the_corrected_forecast():
    grid, issues, by_hand = MorningsLookClean(), Issues(), Issues()
    for hour in range(0, 60, 3):
        now = START + timedelta(hours=hour)
        answer = live_plan(grid, job(now), issues, now)
        newest = grid.forecast(now, timedelta(hours=20))
        better = correct(by_hand.continued("ZZ", newest), by_hand.of("ZZ", KIND), now)
        assert answer == plan(job(now), better, now)
        by_hand.add("ZZ", newest)
    assert answer != plan(job(now), newest, now)
    assert len(issues.of("ZZ", KIND)) == 20


def test_it_learns_over_restarts(tmp_path):
    """Each plan by another process. The first one trusts the mornings; after four days the noon is chosen."""
    grid, waits = MorningsLookClean(), {}
    for hour in range(0, 24 * 5, 3):
        now = START + timedelta(hours=hour)
        answer = live_plan(grid, job(now), Issues(tmp_path / ISSUES_FILE), now)
        if now.hour == 0:
            waits[now.day] = next(slot.start.hour for slot in answer.slots if slot.action == "run")
    assert waits[START.day] == 6
    assert waits[START.day + 4] == 12
    forgetful = live_plan(grid, job(now := START + timedelta(days=4)), Issues(), now)
    assert next(slot.start.hour for slot in forgetful.slots if slot.action == "run") == 6


def test_without_a_forecast_it_runs_now():
    class Silent(MorningsLookClean):
        def forecast(self, now, horizon):
            return None

    answer = live_plan(Silent(), job(START), Issues(), START)
    assert answer.slots[0].action == "run"
    assert "nothing is known" in answer.reason


def test_a_forecast_from_the_future_counts_as_issued_now():
    class Ahead(MorningsLookClean):
        def forecast(self, now, horizon):
            return replace(super().forecast(now, horizon), issued_at=now + timedelta(hours=2))

    issues = Issues()
    assert live_plan(Ahead(), job(START), issues, START).slots[0].action == "exit"
    assert issues.of("ZZ", KIND)[0].issued_at == START


def test_history_alone_plans_too():
    class Past(MorningsLookClean):
        def forecast(self, now, horizon):
            found = super().forecast(now, horizon)
            return Forecast([], [], history_times=found.history_times, history_values=found.history_values)

    answer = live_plan(Past(), job(START), Issues(), START)
    assert [slot.start.hour for slot in answer.slots if slot.action == "run"] == [12, 13, 14]


@pytest.mark.parametrize(
    "there",
    [
        Job(3.25, deadline=START, levels=(Level(1, 1), Level(0.7812345678, 0.9)), hold_power=0.31, resume_cost=0.07),
        Job(1.0, pauses=frozenset({"hold"}), min_saving=0.02, delay_price=12.5),
        Job(1.0, pauses=frozenset()),
    ],
)
def test_a_job_goes_to_another_process(there):
    record = json.loads(json.dumps(job_record(there)))
    assert job_from_record(record, "out") == replace(there, state="out")


def test_a_record_of_work_alone_is_a_job():
    assert job_from_record({"work_hours": 2.0}, "running") == Job(2.0)


def test_levels_are_read_as_users_write_them():
    job = job_from_record({"work_hours": 2.0, "levels": ["1:1", "0.78:0.90"], "delay_price": 0.0}, "out")
    assert job.levels == (Level(1, 1), Level(0.78, 0.9))


def test_a_price_on_time_takes_the_place_of_a_deadline():
    """A pause ends where an hour more costs more than it saves, whoever plans."""

    class Asked(MorningsLookClean):
        def forecast(self, now, horizon):
            horizons.append(horizon)
            return super().forecast(now, horizon)

    horizons = []
    patient = live_plan(Asked(), Job(3.0, delay_price=20.0), Issues(), START)
    assert patient.slots[0].action == "exit"
    assert live_plan(Asked(), Job(3.0, delay_price=2000.0), Issues(), START).slots[0].action == "run"
    assert min(horizons) >= timedelta(hours=96)


def test_the_supervisor_plans_for_a_price_on_time_and_with_levels(tmp_path, monkeypatch):
    """The morning that was waited for is a day away now: at 200 g an hour it is not worth it any more."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE.parents[2]))
    run = tmp_path / "run"
    paused_with_a_plan(run, MorningsLookClean(promised=590.0).spec())
    ledger = next(run.glob("ledger*.jsonl"))
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    lines[-1]["job"] |= {"deadline": None, "delay_price": 200.0, "levels": ["1:1", "0.78:0.9"]}
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = open_folder(run, fresh=False, say=lambda line: None)
    try:
        assert Supervisor([sys.executable, str(FAKE), "finish"], folder, clock=CLOCK, say=lambda line: None).run() == 0
    finally:
        folder.unlock()
    records = read_ledger(run)
    decided = next(record for record in records if record["event"] == "decision")
    assert decided["action"] == "run"
    started = [record for record in records if record["event"] == "started"][-1]
    assert int(started["time_utc"][11:13]) < 10, "it was planned to be out until ten"


@pytest.mark.parametrize("known", [False, True])
def test_the_supervisor_plans_with_what_the_training_was_told(tmp_path, monkeypatch, known):
    """A run is out at midnight. Whoever saw four wrong mornings lets the next one pass and waits for noon."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE.parents[2]))
    grid, run = MorningsLookClean(), tmp_path / "run"
    paused_with_a_plan(run, grid.spec())
    if known:
        issues = Issues(run / ISSUES_FILE)
        for hour in range(-24 * 4, 0, 3):
            then = START + timedelta(hours=hour)
            live_plan(grid, job(then), issues, then)
    said = []
    folder = open_folder(run, fresh=False, say=said.append)
    try:
        code = Supervisor([sys.executable, str(FAKE), "finish"], folder, clock=CLOCK, say=said.append).run()
    finally:
        folder.unlock()
    assert code == 0
    started = [record for record in read_ledger(run) if record["event"] == "started"][-1]
    assert int(started["time_utc"][11:13]) in (range(12, 17) if known else [6])
    kept = Issues(run / ISSUES_FILE).of("ZZ", KIND)
    assert kept[-1].issued_at > START, "what the supervisor was told is kept for the training"
    assert (kept[0].issued_at < START) == known
