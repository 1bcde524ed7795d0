"""The job of a run, read from its ledger."""

import json
from datetime import timedelta

import pytest

from lightning_green.check.recorded_job import NoJobError, read_recorded_job
from lightning_green.planning import Job
from tests.helpers.run_records import START, at, make_record

GRID = {"grid": "typical:DE"}


def write(folder, *records):
    (folder / "ledger.a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def decision(hours, work_hours, with_job=True, deadline=24.0, **fields):
    job = Job(work_hours, deadline=at(deadline), resume_cost=0.3).to_json() if with_job else None
    found = {"job": job, "grid": GRID} if with_job else {}
    return make_record(hours, "decision", work_hours=work_hours, action="run", **found, **fields)


def test_job_of_a_running_run_is_its_remaining_work(tmp_path):
    started = make_record(0, "started", startup_s=0.0, meter="")
    write(tmp_path, started, decision(0.1, 8.0), decision(3, 5.0, with_job=False))
    found = read_recorded_job(tmp_path, at(4))
    assert (found.job.work_hours, found.job.deadline, found.job.state) == (5.0, at(24), "running")
    assert found.job.resume_cost == 0.3
    assert (found.grid, found.state) == (GRID, "running")


def test_job_of_a_paused_run_is_that_of_its_exit(tmp_path):
    paused = make_record(2, "paused", until=at(9).isoformat(), job=Job(6.0, at(24)).to_json(), grid=GRID)
    write(tmp_path, decision(0.1, 8.0), decision(1.9, 6.1, with_job=False), paused)
    found = read_recorded_job(tmp_path, at(4))
    assert (found.job.state, found.state) == ("out", "paused")
    assert found.job.work_hours == pytest.approx(6.1)


def test_job_of_a_finished_run_is_the_whole_training_with_the_same_slack(tmp_path):
    write(tmp_path, decision(0.0, 8.0), decision(5, 3.0, attempt=2), make_record(9, "finished", attempt=2))
    found = read_recorded_job(tmp_path, START + timedelta(days=100))
    assert (found.job.work_hours, found.job.state, found.state) == (8.0, "running", "finished")
    assert found.job.deadline == START + timedelta(days=100, hours=24)


def test_job_of_several_fits_is_that_of_the_last_one(tmp_path):
    write(tmp_path, decision(0, 8.0), make_record(7, "finished"), decision(8, 2.0, fit=1, deadline=30))
    found = read_recorded_job(tmp_path, at(9))
    assert (found.job.work_hours, found.job.deadline, found.state) == (2.0, at(30), "running")


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([], "no training has started"),
        ([make_record(0, "started", startup_s=0.0, meter="")], "no CarbonScheduler has made a plan"),
        (
            [make_record(0, "decision", reason="Run without waiting: there is no deadline.", action="run")],
            "there is no deadline",
        ),
        ([make_record(0, "decision", work_hours=1.0, job={"levels": 3})], "is damaged"),
        ([make_record(0, "decision", job={"work_hours": -1.0}, action="run")], "is damaged"),
    ],
)
def test_run_without_a_job_is_explained(tmp_path, records, why):
    write(tmp_path, *records)
    with pytest.raises(NoJobError, match=why):
        read_recorded_job(tmp_path, at(1))
