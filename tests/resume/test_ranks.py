"""Trainings on two ranks, started by Lightning and by torchrun, end like uninterrupted ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.utilities.clock import SystemClock
from tests.helpers.ledgers import last_state_of, make_event, read_records
from tests.helpers.processes import environment, green, run_to_the_end
from tests.helpers.traces import CLOCK as HALF_HOURS
from tests.helpers.traces import two_windows, write_trace

CLOCK = "simulated:start=2024-05-02T16:00:00+00:00,batch=60"
SCRIPT = Path(__file__).parents[1] / "helpers" / "rank_training.py"
pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def start(folder, launcher="ddp", stop="", strategy="ddp", **variables):
    line = [str(SCRIPT), str(folder), "spawn" if launcher == "ddp_spawn" else strategy]
    if launcher == "torchrun":
        run = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        line = run + line
    variables |= {"LIGHTNING_GREEN_CLOCK": CLOCK}  # with it the ranks look up at every boundary, not once a second
    variables |= {"LIGHTNING_GREEN_RUN_DIR": str(folder / "run"), "LIGHTNING_GREEN_RESUME": "1", "STOP": stop}
    done = subprocess.run(
        [sys.executable, *line],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def ended(folder):
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    return [{key: one[key] for key in ("weights", "random", "logged", "last")} for one in ranks]


def ending(folder):
    return last_state_of(read_records(folder / "run"))["event"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    code, output = start(folder)
    assert code == 0, output
    first, second = ended(folder)
    assert first["weights"] != second["weights"]  # each rank has buffers of its own
    assert first["random"] != second["random"]
    return ended(folder)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(
    ("launcher", "stop", "code", "last"),
    [
        ("ddp", "exit@7", 75, "paused"),
        ("ddp_spawn", "exit@17", 1, "paused"),  # of the process that spawned the ranks: one of them left with 75
        ("torchrun", "exit@7", 0, "paused"),
        ("ddp", "SIGTERM@7:1", 0, "interrupted"),
        ("ddp", "SIGINT@7:0", 1, "interrupted"),
    ],
)
def test_stopped_run_ends_like_an_uninterrupted_run(launcher, stop, code, last, uninterrupted, tmp_path):
    left, output = start(tmp_path, launcher, stop)
    assert left == code, output
    assert ending(tmp_path) == last
    assert not list((tmp_path / "run" / "checkpoints").glob("*.shard"))  # the ranks differ in buffers only
    again, output = start(tmp_path, launcher)
    assert again == 0, output
    assert ended(tmp_path) == uninterrupted
    first = json.loads((tmp_path / "rank1.json").read_text())["first"]
    assert first[:2] == ([0, 7] if "@7" in stop else [1, 5])


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("stop", ["SIGKILL@7:1", "raise@7:1"])
def test_loss_of_a_rank_ends_the_job(stop, tmp_path):
    assert start(tmp_path, "ddp", stop)[0] != 0
    assert ending(tmp_path) in ("started", "failed")


def torchrun(folder, *options):
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *options]
    return [*run, SCRIPT, folder, "ddp"]


def test_ranks_of_a_killed_agent_save_and_exit_before_the_next_start(uninterrupted, tmp_path):
    line = green("run", "--run-dir", tmp_path / "run", "--", *torchrun(tmp_path))
    code, output = run_to_the_end(line, tmp_path, 400, STOP="agent@7:1")
    assert code == 0, output
    assert "The command has ended, and 2 processes of its training are still running: " in output
    assert ended(tmp_path) == uninterrupted
    kinds = [one["event"] for one in read_records(tmp_path / "run")]
    assert [kind for kind in kinds if kind in ("started", "interrupted", "finished")] == [
        "started",
        "interrupted",
        "started",
        "finished",
    ]


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("supervised", [False, True])
def test_workers_that_torchrun_restarts_continue(supervised, uninterrupted, tmp_path):
    line = torchrun(tmp_path, "--max-restarts", "1")
    if supervised:
        line = green("run", "--run-dir", tmp_path / "run", "--clock", CLOCK, "--max-restarts", "0", "--", *line)
    # With the store of the first workers, the second ones may connect to the addresses of the first ones.
    variables = {"LIGHTNING_GREEN_CLOCK": CLOCK, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    variables["LIGHTNING_GREEN_RUN_DIR"] = str(tmp_path / "run")
    code, output = run_to_the_end(line, tmp_path, 400, STOP="raise@7:1", EVERY="1m", **variables)
    assert code == 0, output
    assert "continued from step 6" in output
    assert ended(tmp_path) == uninterrupted


@pytest.mark.nightly
def test_hold_may_exceed_the_timeout_of_the_process_group(uninterrupted, tmp_path):
    code, output = start(tmp_path, "ddp", "hold@7", HOLD="25", TIMEOUT="20")
    assert code == 0, output
    assert ended(tmp_path) == uninterrupted


def test_loss_of_a_rank_in_a_hold_ends_the_job_within_a_minute(tmp_path):
    code, _ = start(tmp_path, "ddp", "hold-kill@7:1", HOLD="60")
    assert code != 0
    assert (tmp_path / "held").exists()
    assert not (tmp_path / "hold-over").exists()


@pytest.mark.nightly
def test_changed_number_of_processes_is_refused_or_approximate(tmp_path):
    assert start(tmp_path, "ddp", "exit@17")[0] == 75
    code, output = start(tmp_path, "ddp", DEVICES="1")
    assert code == 1
    assert "The checkpoint contains the states of 2 process(es), and this training has 1." in output
    code, output = start(tmp_path, "ddp", DEVICES="1", INEXACT="1")
    assert code == 0, output
    assert "continues with 1 processes instead of 2: approximately" in output
    ended = json.loads((tmp_path / "rank0.json").read_text())
    assert ended["first"][:2] == [1, 10]  # 5 of 12 batches were done by each of two; one process has 24 batches
    assert ended["batches"] == 14


def test_two_ranks_wait_for_clean_electricity_and_resume(uninterrupted, tmp_path):
    options = ("--run-dir", tmp_path / "run", "--clock", HALF_HOURS)
    line = green("run", *options, "--", sys.executable, SCRIPT, tmp_path, "ddp")
    code, output = run_to_the_end(line, tmp_path, 400, GRID=write_trace(tmp_path / "trace.csv", two_windows()))
    assert code == 0, output
    records = read_records(tmp_path / "run")
    assert [one["event"] for one in records if one["event"] in ("started", "paused", "finished")] == [
        "started",
        *["paused", "started"] * sum(one["event"] == "paused" for one in records),
        "finished",
    ]
    assert any(one["event"] == "paused" for one in records)
    assert {one["node"] for one in records} == {records[0]["node"]}
    assert ended(tmp_path) == uninterrupted


@pytest.mark.nightly
def test_run_that_is_alive_is_refused_and_no_process_remains(tmp_path):
    folder = RunDirectory(tmp_path / "run")
    folder.lock("run")
    Ledger(folder.path, SystemClock(), 1).append(make_event("started", global_step=3))
    try:
        code, output = start(tmp_path)  # this waits for every process that holds the output open, the second rank too
    finally:
        folder.unlock()
    assert code == 1
    assert "RunIsAliveError" in output
