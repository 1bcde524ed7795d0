"""Pruning, rounding, a teacher, fp16, the tracker and the scheduler in one Trainer that is paused, killed and resumed.

On one rank and on two, of which the second is killed and takes the first with it; with both packages of Lightning.
"""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.helpers.ledgers import read_records
from tests.helpers.processes import Process, green, run_to_the_end
from tests.helpers.traces import CLOCK, write_trace

JOB = Path(__file__).with_name("helpers") / "everything_job.py"
BATCHES, KILLED_AT = 48, 39
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("everything")]


@pytest.fixture(
    scope="module", params=["lightning.pytorch", pytest.param("pytorch_lightning", marks=pytest.mark.nightly)]
)
def package(request):
    return request.param


RANKS = [
    pytest.param(1, marks=pytest.mark.nightly, id="one"),
    pytest.param(2, marks=pytest.mark.distributed, id="two"),
]


@pytest.fixture(scope="module", params=RANKS)
def job(request, package, tmp_path_factory):
    """Run the script held in process and never stopped, and under the supervisor: a pause, then a kill."""
    ranks = request.param
    folder = tmp_path_factory.mktemp(f"everything-{ranks}")
    clean = {*range(4), *range(14, 19)}  # eight hours of work pause half way
    trace = write_trace(folder / "trace.csv", [50 if hour in clean else 600 for hour in range(48)])
    reference, stopped = folder / "reference", folder / "stopped"
    gate = stopped / "gates" / f"batch-{KILLED_AT}"
    gate.parent.mkdir(parents=True)
    gate.touch()

    line = green("run", "--run-dir", stopped / "run", "--clock", CLOCK, "--", sys.executable, JOB, stopped)
    with Process(line, stopped, GRID=trace, PAUSE="auto", RANKS=str(ranks), LIGHTNING=package) as supervisor:
        code, printed = run_to_the_end(
            [sys.executable, JOB, reference],
            reference,
            PAUSE="hold",
            RANKS=str(ranks),
            GRID=trace,
            LIGHTNING=package,
            LIGHTNING_GREEN_CLOCK=CLOCK,
            LIGHTNING_GREEN_RUN_DIR=str(reference / "run"),
        )
        assert code == 0, printed
        supervisor.until(gate.with_suffix(".here").exists)
        os.kill(int((stopped / f"starts-{ranks - 1}").read_text().split()[-1]), signal.SIGKILL)
        gate.unlink()
        assert supervisor.wait() == 0, supervisor.printed
    return reference, stopped, range(ranks)


def result(folder, rank):
    return json.loads((folder / f"result-{rank}.json").read_text())


def rows(folder, name, rank):
    return [json.loads(line) for line in (folder / f"{name}-{rank}").read_text().splitlines()]


def test_it_ends_as_the_run_that_never_stopped(job):
    reference, stopped, ranks = job
    for rank in ranks:
        never, again = result(reference, rank), result(stopped, rank)
        for what in ("weights", "optimizer", "masks", "scaler", "skipped", "int8"):
            assert again[what] == never[what], (rank, what)


def test_the_ranks_end_with_the_same_parameters_and_masks(job):
    reference, stopped, ranks = job
    for what in ("parameters", "optimizer", "masks", "scaler", "skipped"):
        assert len({str(result(folder, rank)[what]) for folder in (reference, stopped) for rank in ranks}) == 1, what


def test_it_was_paused_and_killed_and_each_batch_was_the_same(job):
    reference, stopped, ranks = job
    states = [r["event"] for r in read_records(stopped / "run") if r["event"] in ("started", "paused", "finished")]
    assert states == ["started", "paused", "started", "started", "finished"]  # the kill started it again
    for rank in ranks:
        expected = rows(reference, "batches", rank)
        assert [number for number, *_ in expected] == list(range(BATCHES))
        seen = rows(stopped, "batches", rank)
        assert len(seen) > BATCHES  # what the kill cost was done again
        assert [expected[number] for number, *_ in seen] == seen
        assert {number for number, *_ in seen} == set(range(BATCHES))
        assert len((reference / f"starts-{rank}").read_text().split()) == 1


def test_a_step_that_overflowed_is_none_for_the_scheduler_and_the_scale(job):
    reference, stopped, ranks = job
    for rank in ranks:
        expected = rows(reference, "rates", rank)
        assert result(reference, rank)["skipped"] == 2
        steps = [(number, rate) for number, rate, *_ in expected if number % 2]  # a step every second batch
        held = [number for (number, rate), (_, before) in zip(steps[1:], steps, strict=False) if rate == before]
        assert held == [5, 33]
        scales = [scale for number, _, scale, _ in expected if number % 2]
        assert scales[2] == scales[1] / 2
        assert max(scales) > 1024.0  # it grew too
        seen = rows(stopped, "rates", rank)
        assert [expected[number] for number, *_ in seen] == seen


def test_what_was_pruned_is_zero_in_int8(job):
    *folders, ranks = job
    for end in (result(folder, rank) for folder in folders for rank in ranks):
        assert set(end["dropped_and_not_zero"].values()) == {0}
        for name, count in end["integers"].items():
            assert end["dropped"][name] >= 0.58 * count
