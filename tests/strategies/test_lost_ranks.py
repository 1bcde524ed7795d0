"""Finding the ranks with which a communication has failed."""

import os
from dataclasses import replace
from datetime import timedelta

import pytest
import torch.distributed as dist

from lightning_green.strategies import lost_ranks
from lightning_green.strategies.lost_ranks import LostRanks, RankLostError, is_communication_error, is_timeout
from lightning_green.utilities.processes import ProcessId

OWN = ProcessId.of(os.getpid())
KEY = f"lightning_green/failed/{OWN.pid}-{OWN.started}/{{rank}}"
REMOTE = replace(OWN, host="node2 pid:[1]", pid=7)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(lost_ranks, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(lost_ranks, "STORE_SECONDS", 0.3)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (RankLostError("gone"), True),
        (dist.DistNetworkError("EADDRINUSE"), True),
        (RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection closed by peer [127.0.0.1]:41029"), True),
        (RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 15000ms for recv operation"), True),
        (RuntimeError("Operation timed out!"), True),
        (RuntimeError("DataLoader timed out after 30 seconds"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("a timeout of the user"), False),
    ],
)
def test_errors_of_communication_are_recognized(error, is_one):
    assert is_communication_error(error) is is_one


def test_ranks_that_have_not_reported_to_the_store_are_lost():
    store = dist.HashStore()
    store.set(KEY.format(rank=2), "1")
    store.set("lightning_green/failed/7-1/1", "1")  # of workers that torchrun has restarted
    ranks = LostRanks(0, [OWN, REMOTE, REMOTE, replace(REMOTE, pid=9)], store)
    assert ranks.describe() == (
        "Rank 1 is lost: process 7 on node2 does not answer; Rank 3 is lost: process 9 on node2 does not answer"
    )
    assert store.check([KEY.format(rank=0)])


def test_no_rank_is_lost_if_all_have_reported():
    store = dist.HashStore()
    store.set(KEY.format(rank=1), "1")
    assert LostRanks(0, [OWN, REMOTE], store).describe() == ""


def test_process_of_this_machine_that_is_gone_is_found_without_the_store():
    ranks = LostRanks(0, [OWN, replace(OWN, started="1")], None)
    assert ranks.describe() == f"Rank 1 is lost: {OWN} has ended"


def test_running_process_of_this_machine_is_lost_only_after_a_timeout():
    """An error of this rank alone, such as one of its device, does not reach the others."""
    other = ProcessId.of(os.getppid())
    assert LostRanks(0, [OWN, other], dist.HashStore()).describe(timed_out=False) == ""
    assert LostRanks(0, [OWN, other], dist.HashStore()).describe() == f"Rank 1 is lost: {other} does not answer"
    remote = LostRanks(0, [OWN, REMOTE], dist.HashStore()).describe(timed_out=False)
    assert remote == "Rank 1 is lost: process 7 on node2 does not answer"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 15000ms for recv operation", True),
        ("Operation timed out!", True),
        ("Watchdog caught collective operation timeout: WorkNCCL(...)", True),
        ("[gloo/transport/tcp/pair.cc:537] Connection closed by peer", False),
        ("NCCL Error 1: Failed to CUDA calloc 6291456 bytes", False),
    ],
)
def test_timeouts_are_recognized(error, expected):
    assert is_timeout(RuntimeError(error)) is expected


def test_store_that_does_not_answer_is_that_of_rank_zero():
    store = dist.TCPStore("localhost", 0, 1, is_master=True, timeout=timedelta(seconds=5))

    class Silent:
        def set(self, key, value):
            raise dist.DistNetworkError("Broken pipe")

    ranks = LostRanks(1, [REMOTE, OWN], Silent())
    assert ranks.describe() == "Rank 0 is lost: process 7 on node2 does not answer"
    del store
