"""The whole path: the real supervisor, a training that exits and comes back, and a supervisor that is killed twice."""

import csv
import json
import os
import re
import signal
import sys
from contextlib import suppress

import pytest

from lightning_green.report import read_run_status
from tests.examples.helpers import read_wandb
from tests.helpers.ledgers import read_records, total_of
from tests.helpers.processes import MAIN_JOB, Process, green, run_to_the_end
from tests.helpers.traces import CLOCK, two_windows, write_trace

STEPS = 48
NAMES = {
    "energy/kwh",
    "energy/power_w",
    "carbon/intensity",
    "carbon/gco2e",
    "carbon/state",
    "carbon/elapsed_hours",
}
TOTALS = {
    "energy/kwh",
    "carbon/gco2e",
    "carbon/counterfactual_gco2e",
    "carbon/saving_pct",
    "carbon/exits",
    "carbon/hours_waited",
}


pytestmark = pytest.mark.xdist_group("main_job")  # its fixtures run once
PACKAGES = ["lightning.pytorch", pytest.param("pytorch_lightning", marks=pytest.mark.nightly)]


@pytest.fixture(scope="module", params=PACKAGES)
def job(request, tmp_path_factory):
    """Run the same script held in process and never stopped, and under a supervisor that is killed twice."""
    folder = tmp_path_factory.mktemp("main_job")
    variables = {
        "GRID": write_trace(folder / "trace.csv", two_windows()),
        "DEADLINE": "40h",
        "LIGHTNING": request.param,
    }

    reference = folder / "reference"
    code, printed = run_to_the_end(
        [sys.executable, MAIN_JOB, reference],
        reference,
        PAUSE="hold",
        LIGHTNING_GREEN_CLOCK=CLOCK,
        LIGHTNING_GREEN_RUN_DIR=str(reference / "run"),
        **variables,
    )
    assert code == 0, printed

    paused = folder / "paused"
    gates = paused / "gates"
    gates.mkdir(parents=True)
    (gates / "start-2").touch()
    (gates / "step-15").touch()
    line = green("run", "--run-dir", paused / "run", "--clock", CLOCK, "--", sys.executable, MAIN_JOB, paused)

    # It leaves; the machine goes down while it is out, before the second process has begun.
    with Process(line, paused, **variables) as first:
        first.until((gates / "start-2.here").exists)
        first.kill(signal.SIGKILL)
        os.kill(int((paused / "starts").read_text().split()[-1]), signal.SIGKILL)
    (gates / "start-2").unlink()

    # The same line continues it; now the supervisor alone is killed, in the middle of the training.
    with Process(line, paused, **variables) as second:
        second.until((gates / "step-15.here").exists)
        assert second.kill(signal.SIGKILL) == -signal.SIGKILL
        survivor = int((paused / "starts").read_text().split()[-1])
        os.kill(survivor, 0)  # the training does not notice
        try:
            # The same line waits for the training that is still there, and takes over where that one leaves.
            with Process(line, paused, **variables) as third:
                third.until(lambda: "still running without its supervisor" in third.printed)
                (gates / "step-15").unlink()
                assert third.wait() == 0, third.printed
                printed = third.printed
        finally:
            with suppress(ProcessLookupError):
                os.kill(survivor, signal.SIGKILL)
    return reference, paused, printed


def result(folder):
    return json.loads((folder / "result.json").read_text())


def steps(folder):
    return [json.loads(line) for line in (folder / "steps").read_text().splitlines()]


def wandb_parts(folder):
    return [read_wandb(path) for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]


@pytest.mark.slow
def test_the_weights_are_those_of_the_run_that_never_stopped(job):
    reference, paused, _ = job
    assert result(reference)["steps"] == result(paused)["steps"] == STEPS
    assert result(paused)["weights"] == result(reference)["weights"]


@pytest.mark.slow
def test_no_step_is_lost_or_repeated_and_each_sees_the_same_samples(job):
    reference, paused, _ = job
    assert [step for step, *_ in steps(paused)] == list(range(STEPS))
    assert steps(paused) == steps(reference)
    assert len((reference / "starts").read_text().split()) == 1
    assert len((paused / "starts").read_text().split()) == 4  # one of them was killed before it began
    printed = "".join(path.read_text() for path in sorted(paused.glob("output.*")))
    continued = [r["global_step"] for r in read_records(paused / "run") if r["event"] == "started"][1:]
    assert [int(step) for step in re.findall(r"continued from step (\d+)", printed)] == continued


@pytest.mark.slow
def test_the_ledger_tells_it_in_order(job):
    reference, paused, _ = job
    records = read_records(paused / "run")
    states = [r["event"] for r in records if r["event"] in ("started", "paused", "finished", "failed", "interrupted")]
    assert states == ["started", "paused", "started", "paused", "started", "finished"]
    assert [r["attempt"] for r in records if r["event"] == "started"] == [1, 2, 3]
    assert [r["seq"] for r in records] == list(range(1, len(records) + 1))
    assert [r["time_utc"] for r in records] == sorted(r["time_utc"] for r in records)
    for left, came in zip(
        [r for r in records if r["event"] == "paused"], [r for r in records if r["event"] == "started"][1:], strict=True
    ):
        assert came["global_step"] == left["global_step"]
        assert came["time_utc"] >= left["until"]
        assert left["reason"]
    assert [record["event"] for record in records[-2:]] == ["finished", "ended"]
    assert records[-2]["global_step"] == STEPS
    assert [r["event"] for r in read_records(reference / "run") if r["event"] == "paused"] == []
    assert {r["state"] for r in read_records(reference / "run") if "joules" in r} == {"running", "held"}


@pytest.mark.slow
def test_wandb_has_one_run_that_is_complete(job):
    _, paused, _ = job
    parts = wandb_parts(paused)
    assert len(parts) == 3
    assert len(set().union(*(ids for ids, _ in parts))) == 1
    rows = [row for _, rows in parts for row in rows]
    assert [row["trainer/global_step"] for row in rows if "train/loss" in row] == list(range(STEPS))
    assert len([row for row in rows if "val/loss" in row]) == 4
    assert set().union(*rows) >= NAMES
    hours = [row["carbon/elapsed_hours"] for row in rows if "carbon/elapsed_hours" in row]
    energy = [row["energy/kwh"] for row in rows if "energy/kwh" in row]
    assert hours == sorted(hours)
    assert energy == sorted(energy)
    assert energy[0] < energy[-1]
    (line,) = [line for line in (paused / "output.2").read_text().splitlines() if "W&B        for part in" in line]
    words = line.split()
    (run_id,) = set().union(*(ids for ids, _ in parts))
    assert line.endswith(f'; do wandb sync --yes --id {run_id} "$part"; done')
    folders = [word.rstrip(";") for word in words[4 : words.index("do")]]
    assert sorted(folders) == sorted(str(path) for path in paused.glob("wandb/offline-run-*"))


@pytest.mark.slow
def test_the_csv_log_goes_on_in_the_same_file(job):
    _, paused, _ = job
    (path,) = paused.glob("csv/*/metrics.csv")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row["train/loss"]] == list(range(STEPS))
    assert set(rows[0]) >= NAMES


@pytest.mark.slow
def test_the_totals_are_those_of_all_parts(job):
    reference, paused, _ = job
    totals, books = result(paused)["totals"], total_of(read_records(paused / "run"))
    assert set(totals) >= TOTALS
    assert totals["carbon/exits"] == 2
    assert totals["carbon/hours_waited"] == pytest.approx(books.hours_waited)
    assert 8.5 < totals["carbon/hours_waited"] < 9.5  # 1 to 4 and 8 to 14
    assert totals["energy/kwh"] == pytest.approx(books.kwh, rel=1e-3)
    # 300 W for 48 batches of ten minutes, a minute for each checkpoint, and five for each of two returns
    saved = [r["reason"] for r in read_records(paused / "run") if r["event"] == "checkpoint"]
    assert saved.count("exit") == 2
    assert totals["energy/kwh"] == pytest.approx(0.3 * (48 * 10 + len(saved) + 2 * 5) / 60, rel=1e-6)
    assert totals["carbon/gco2e"] < totals["carbon/counterfactual_gco2e"]
    (emissions,) = read_run_status(paused / "run").emissions  # from the ledger alone, without the grid
    assert emissions.run_now_gco2e == pytest.approx(totals["carbon/counterfactual_gco2e"], rel=1e-3)
    assert emissions.known_share == pytest.approx(1.0)
    assert totals["carbon/saving_pct"] > 30
    assert totals["energy/kwh"] < result(reference)["totals"]["energy/kwh"]  # which held at 0.3 of its power
    assert result(reference)["totals"]["carbon/exits"] == 0


@pytest.mark.slow
def test_supervisor_reports_exits_and_surviving_trainings(job):
    _, paused, printed = job
    assert "Exited until 2024-05-02 14:00 UTC" in printed
    assert "Waiting for its end" in printed
    code, status = run_to_the_end(green("status", paused / "run"), paused)
    assert code == 0
    assert "finished at step 48" in status
