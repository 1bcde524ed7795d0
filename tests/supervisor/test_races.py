"""Several supervisors that open one directory at the same moment: exactly one uses it, whatever its state."""

import multiprocessing
import os
import shutil

import pytest

from lightning_green.ledger import role_lock
from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunDirectory, RunIsAliveError
from lightning_green.supervisor.command import Command, write_command
from lightning_green.supervisor.run_directory import open_run_directory
from lightning_green.utilities.clock import SystemClock
from tests.helpers.ledgers import make_event, read_records

FORK = multiprocessing.get_context("fork")
COMMAND = Command(("python", "train.py"), "/home/me")
PROCESSES = 3
STATES = ["new", "finished", "abandoned", "unfinished", "fresh"]


def prepare(path, state):
    """Create the directory of a run in a state."""
    for old in path.parent.glob(f"{path.name}*"):
        shutil.rmtree(old)
    if state == "new":
        return
    directory = RunDirectory(path)
    directory.save()
    ledger = Ledger(path, SystemClock(), 1, node="a")
    for name in ["started", "finished", "ended"] if state in ("finished", "abandoned") else ["started", "paused"]:
        ledger.append(make_event(name))
    ledger.close()
    if state != "abandoned":
        write_command(path, COMMAND, 0 if state == "finished" else None)
    else:
        (path / "supervisor.heartbeat").write_text("")


def race(path, number, count, barrier, results):
    role_lock.LOCK_SECONDS = 0.05
    for index in range(count):
        state = STATES[index % len(STATES)]
        if number == 0:
            prepare(path, state)
        barrier.wait(60)
        directory, outcome = None, "refused"
        try:
            directory = open_run_directory(path, fresh=state == "fresh", print_line=lambda line: None, command=COMMAND)
            inode = os.stat(path).st_ino
            (path / "mark").touch()
        except RunIsAliveError:
            pass
        except Exception as error:  # noqa: BLE001 - of any kind
            outcome = repr(error)
        barrier.wait(60)  # the winner still uses the directory
        if directory is not None:
            kept = os.stat(path).st_ino == inode and (path / "mark").exists() and directory.is_alive("supervisor")
            archives = sorted(one.name for one in path.parent.iterdir() if one != path)
            moved = [] if state in ("new", "abandoned", "unfinished") else [f"{path.name}.1"]
            outcome = "won" if kept and archives == moved else f"{state}: kept {kept}, moved {archives}"
            if moved:
                assert len(read_records(path.parent / moved[0])) >= 2
            directory.unlock()
        results.put((index, outcome))
        barrier.wait(60)


def run_races(folder, count):
    """Return the outcomes of each race."""
    folder.mkdir()
    barrier, results = FORK.Barrier(PROCESSES), FORK.Queue()
    processes = [
        FORK.Process(target=race, args=(folder / "run", number, count, barrier, results)) for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    outcomes = [[] for _ in range(count)]
    for _ in range(count * PROCESSES):
        index, outcome = results.get(timeout=120)
        outcomes[index].append(outcome)
    for process in processes:
        process.join()
    return outcomes


@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.nightly)])
def test_exactly_one_supervisor_wins(tmp_path, count):
    expected = ["refused"] * (PROCESSES - 1) + ["won"]
    outcomes = run_races(tmp_path / "races", count)
    assert [(STATES[n % len(STATES)], one) for n, one in enumerate(outcomes) if sorted(one) != expected] == []
