"""Communication of one rank with itself, and of two processes over gloo."""

import json
import multiprocessing
import os
import signal
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from lightning_green.strategies import control_group
from lightning_green.strategies.control_group import Command, ControlGroup, TrainingGroup
from lightning_green.strategies.lost_ranks import RankLostError
from lightning_green.utilities.clock import SimulatedClock

START = "2024-05-01T00:00:00+00:00"


def test_single_rank_returns_its_own_values_at_once():
    group = ControlGroup()
    assert group.is_rank_zero
    assert group.broadcast({"a": 1}) == {"a": 1}
    assert group.gather("x") == ["x"]
    assert group.all_reduce_max(7) == 7
    group.send(Command.EXIT)
    assert group.all_reduce_max_of_batch(7, 0) == [7, 0]
    assert group.describe_lost(RankLostError("of another")) == ""


def run_ranks(folder, work, ended=(0, 0)):
    """Run ``work(rank, group, clock)`` in two processes; return the result of each that ended normally."""
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=run_rank, args=(rank, str(folder), work)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert tuple(process.exitcode for process in ranks) == ended
    files = [folder / f"rank{rank}.json" for rank in (0, 1)]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def run_rank(rank, folder, work):
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    clock = SimulatedClock(START)
    control_group.LEAST_TIMEOUT = timedelta(seconds=2)
    group = ControlGroup(rank, 2, clock, TrainingGroup(timeout=timedelta(seconds=2), store=store))
    result = work(rank, group, clock)
    with open(f"{folder}/rank{rank}.json", "w") as file:
        json.dump(result, file)
    if "lost" in work.__name__:
        os._exit(0)  # gloo may abort at the end of a process whose peer is gone
    dist.barrier()
    dist.destroy_process_group()


def exchange_values(rank, group, clock):
    return [
        group.is_rank_zero,
        group.broadcast(f"of rank {rank}"),
        group.gather(f"of rank {rank}"),
        group.all_reduce_max(15 * rank),
        group.all_reduce_max_of_batch(10 * rank, 1 - rank),
    ]


@pytest.mark.distributed
def test_two_ranks_exchange_values(tmp_path):
    first, second = run_ranks(tmp_path, exchange_values)
    assert first == [True, "of rank 0", ["of rank 0", "of rank 1"], 15, [10, 1]]
    assert second == [False, "of rank 0", [], 15, [10, 1]]


def send_commands(rank, group, clock):
    if rank == 0:
        clock.sleep(60.0)
        group.send(Command.SET_LEVEL, 2, 0.5, 0.75)
        clock.sleep(60.0)
        group.send(Command.EXIT)
        return []
    received = []
    for _ in range(2):
        command, numbers = group.receive()
        received.append([command.name, numbers, clock.time() - SimulatedClock(START).time()])
    return received


@pytest.mark.distributed
def test_commands_carry_three_numbers_and_the_simulated_time_of_rank_zero(tmp_path):
    _, received = run_ranks(tmp_path, send_commands)
    assert received == [["SET_LEVEL", [2.0, 0.5, 0.75], 60.0], ["EXIT", [0.0, 0.0, 0.0], 120.0]]


def error_of(communicate):
    began = time.monotonic()
    try:
        communicate()
    except RankLostError as error:
        return [time.monotonic() - began, str(error)]
    return []


def lost_in_a_hold(rank, group, clock):
    control_group.HOLD_TIMEOUT = timedelta(seconds=1)
    if rank == 0:
        group.send(Command.HEARTBEAT)
        time.sleep(8.0)
        return []
    group.receive()
    return error_of(group.receive)


@pytest.mark.distributed
def test_missing_heartbeat_in_a_hold_is_an_error(tmp_path):
    _, (seconds, error) = run_ranks(tmp_path, lost_in_a_hold)
    assert 1.0 <= seconds < 6.0
    assert error.startswith("Rank 0 is lost: process ")
    assert " does not answer. The training has stopped: " in error


def lost_by_a_kill(rank, group, clock):
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return error_of(lambda: group.all_reduce_max(1))


def lost_by_a_stop(rank, group, clock):
    if rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    return error_of(lambda: group.all_reduce_max(1))


def lost_by_a_loop(rank, group, clock):
    if rank == 1:
        time.sleep(9.0)
        return []
    return error_of(lambda: group.all_reduce_max(1))


@pytest.mark.sampled(every=3)
@pytest.mark.distributed
@pytest.mark.parametrize(
    ("work", "ended", "what"),
    [
        (lost_by_a_kill, -signal.SIGKILL, "has ended"),
        (lost_by_a_stop, -signal.SIGKILL, "is stopped"),  # and is killed, because nothing else would end it
        (lost_by_a_loop, 0, "does not answer"),
    ],
)
def test_lost_rank_is_named_within_the_timeout_of_the_training(work, ended, what, tmp_path, monkeypatch):
    (seconds, error), *_ = run_ranks(tmp_path, work, (0, ended))
    assert seconds < 2.0 + 5.0
    assert error.startswith("Rank 1 is lost: process ")
    assert f" {what}. The training has stopped: " in error
