"""Two ranks in real processes: several fits, signals, lost ranks, other callbacks, a port in use."""

import json
import os
import re
import signal
import socket
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from lightning_green.strategies.lost_ranks import ANSWER_SECONDS, STORE_SECONDS
from lightning_green.utilities.processes import ProcessId
from tests.helpers.ledgers import last_state_of, read_records
from tests.helpers.processes import run_to_the_end

SCRIPT = Path(__file__).parents[1] / "helpers" / "rank_situations.py"
CLOCK = "simulated:start=2024-05-02T16:00:00+00:00,batch=60"
TIMEOUT = 30
"""Timeout of the process group in seconds."""
pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def start(folder, strategy="ddp", seconds=400, **variables):
    """Run the script to its end; return the exit code and the output."""
    given = {"LIGHTNING_GREEN_RUN_DIR": str(folder / "run"), "LIGHTNING_GREEN_RESUME": "1", **variables}
    return run_to_the_end([sys.executable, SCRIPT, folder, strategy], folder, seconds, **given)


def fits(output):
    return re.findall(r"^FIT (\d) (.*)$", output, re.MULTILINE)


def remaining(folder):
    """Return the processes of the script that are still running."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in line and not ProcessId.of(int(entry.name)).is_gone:
            found.append(int(entry.name))
    return found


def none_remains(folder, seconds=20):
    limit = time.monotonic() + seconds
    while (found := remaining(folder)) and time.monotonic() < limit:
        time.sleep(0.2)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return not found


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn", "mixed"])
def test_each_fit_of_a_script_is_its_own_also_after_a_crash(strategy, tmp_path):
    code, output = start(tmp_path / "whole", strategy, FITS="3")
    assert code == 0, output
    expected = fits(output)
    assert len({weights for _, weights in expected}) == 3
    stopped = tmp_path / "stopped"
    code, output = start(stopped, strategy, FITS="3", FIT="1", DO="raise@13:1", LIGHTNING_GREEN_CLOCK=CLOCK)
    assert code == 1
    assert len(fits(output)) == 1
    assert last_state_of(read_records(stopped / "run"))["fit"] == 1
    code, output = start(stopped, strategy, FITS="3", FIT="1", DO="raise@13:1", LIGHTNING_GREEN_CLOCK=CLOCK)
    assert code == 0, output
    assert fits(output) == expected
    assert ", fit 1, attempt 2, continued from step 1" in output
    kinds = [record["event"] for record in read_records(stopped / "run")]
    assert kinds[-1] == "ended"
    code, output = start(stopped, strategy, FITS="1", LIGHTNING_GREEN_CLOCK=CLOCK)
    assert "continued from" not in output  # the script had ended


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_signal_to_a_rank_ends_the_script_with_a_saved_state(strategy, name, tmp_path):
    code, output = start(tmp_path, strategy, DO=f"{name}@6:1")
    assert code == 1, output
    last = last_state_of(read_records(tmp_path / "run"))
    assert (last["event"], last["signal"], last["reason"]) == ("interrupted", name, f"{name}: saved at step 7")
    code, output = start(tmp_path, strategy, DO=f"{name}@6:1")
    assert code == 0, output
    assert "continued from step 7" in output


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("name", "what", "seconds"), [("SIGSTOP", "is stopped", TIMEOUT), ("SIGKILL", "has ended", 0)])
def test_lost_rank_is_named_within_the_timeout_and_no_process_remains(name, what, seconds, rank, tmp_path):
    code, output = start(tmp_path, DO=f"{name}@6:{rank}", TIMEOUT=str(TIMEOUT), SLOW="0", SECONDS="0.2")
    ended, lost = time.time(), float((tmp_path / "at").read_text())
    assert code != 0
    assert ended - lost < seconds + 30
    pid = (tmp_path / "pids").read_text().split()[0]
    assert re.search(rf"Rank {rank} is lost: process {pid} on \S+ {what}", output), output
    assert none_remains(tmp_path)
    if rank == 1 and name == "SIGSTOP":
        last = last_state_of(read_records(tmp_path / "run"))
        assert last["event"] == "failed"
        assert f"Rank 1 is lost: process {pid}" in last["reason"]
        found = datetime.fromisoformat(last["time_utc"]).timestamp()
        assert found - lost < TIMEOUT + ANSWER_SECONDS + STORE_SECONDS + 5


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("rank", [0, 1])
def test_callback_on_one_rank_is_an_error_at_setup(rank, tmp_path):
    code, output = start(tmp_path, CALLBACKS_ON=str(rank), TIMEOUT="100")
    assert code != 0
    assert "Every rank should have the same callbacks" in output
    assert f"rank {rank} has ExactResume, rank {1 - rank} has no callback that saves states" in output
    assert none_remains(tmp_path)


@pytest.mark.nightly
def test_signal_is_acted_on_within_a_step_after_steps_have_become_slower(tmp_path):
    code, output = start(tmp_path, DO="SIGTERM@13:1", SLOW="13", SECONDS="3")
    ended = time.time()
    assert code == 0, output
    last = last_state_of(read_records(tmp_path / "run"))
    assert last["reason"] == "SIGTERM: saved at step 14"
    assert ended - float((tmp_path / "at").read_text()) < 3 + 30


@pytest.mark.nightly
def test_port_in_use_is_an_error_that_names_it_and_no_rank_remains(tmp_path):
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        port = str(used.getsockname()[1])
        code, output = start(tmp_path, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        assert code == 1
        assert "EADDRINUSE" in output
        assert port in output
        assert none_remains(tmp_path)
    code, output = start(tmp_path, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    assert code == 0, output


@pytest.mark.nightly
def test_runs_of_wandb_have_one_id_and_are_of_rank_zero(tmp_path):
    pytest.importorskip("wandb")
    code, output = start(tmp_path, DO="SIGTERM@6:1", LOGGER="wandb")
    assert code == 0, output
    code, output = start(tmp_path, DO="SIGTERM@6:1", LOGGER="wandb")
    assert code == 0, output
    folders = [path.name for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert len(folders) == 2
    assert len({name.rpartition("-")[2] for name in folders}) == 1
    assert json.loads((tmp_path / "fit0.json").read_text())[0] == 20
