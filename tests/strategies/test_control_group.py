"""Communication of one rank with itself, and of two processes over gloo."""

import json
import multiprocessing
from datetime import timedelta

import pytest
import torch.distributed as dist

from lightning_green.strategies import control_group
from lightning_green.strategies.control_group import Command, ControlGroup, RankLostError
from lightning_green.utilities.clock import SimulatedClock

START = "2024-05-01T00:00:00+00:00"


def test_single_rank_returns_its_own_values_at_once():
    group = ControlGroup()
    assert group.is_rank_zero
    assert group.broadcast({"a": 1}) == {"a": 1}
    assert group.gather("x") == ["x"]
    assert group.all_reduce_max(7) == 7
    group.send(Command.EXIT)
    group.schedule_next_sync(at_every_boundary=False)
    assert [group.sync_due() for _ in range(3)] == [True, True, True]


def run_ranks(folder, work):
    """Run ``work(rank, group, clock)`` in two processes; return the result of each."""
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=run_rank, args=(rank, str(folder), work)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def run_rank(rank, folder, work):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    clock = SimulatedClock(START)
    result = work(rank, ControlGroup(rank, 2, clock), clock)
    with open(f"{folder}/rank{rank}.json", "w") as file:
        json.dump(result, file)
    dist.barrier()
    dist.destroy_process_group()


def exchange_values(rank, group, clock):
    return [
        group.is_rank_zero,
        group.broadcast(f"of rank {rank}"),
        group.gather(f"of rank {rank}"),
        group.all_reduce_max(15 * rank),
    ]


@pytest.mark.distributed
def test_two_ranks_exchange_values(tmp_path):
    first, second = run_ranks(tmp_path, exchange_values)
    assert first == [True, "of rank 0", ["of rank 0", "of rank 1"], 15]
    assert second == [False, "of rank 0", [], 15]


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


def sync_at_boundaries(rank, group, clock):
    synced = []
    for boundary in range(12):
        if not group.sync_due():
            continue
        synced.append(boundary)
        if rank == 0:
            group.schedule_next_sync(at_every_boundary=clock is None)
        else:
            command, (boundaries, *_) = group.receive()
            assert command == Command.CONTINUE
            group.sync_after(int(boundaries))
    return synced


@pytest.mark.distributed
def test_ranks_sync_at_the_same_boundaries_and_less_often_while_boundaries_are_fast(tmp_path):
    first, second = run_ranks(tmp_path, sync_at_boundaries)
    assert first == second
    assert first[0] == 0
    assert len(first) < 12


def sync_at_every_boundary(rank, group, clock):
    return sync_at_boundaries(rank, group, None)


@pytest.mark.distributed
def test_ranks_sync_at_every_boundary_on_a_simulated_clock(tmp_path):
    assert run_ranks(tmp_path, sync_at_every_boundary) == [list(range(12))] * 2


def lose_a_rank_in_a_hold(rank, group, clock):
    control_group.HOLD_TIMEOUT = timedelta(seconds=1)
    if rank == 0:
        group.send(Command.HEARTBEAT)
        return ""
    group.receive()
    try:
        group.receive()
    except RankLostError as error:
        return str(error)
    return ""


@pytest.mark.distributed
def test_missing_heartbeat_in_a_hold_is_an_error(tmp_path):
    _, error = run_ranks(tmp_path, lose_a_rank_in_a_hold)
    assert error.startswith("A process of this training is gone, or sent no heartbeat for 1 s during a hold: ")
