"""Models sharded over two ranks by FSDP and FSDP2: each rank saves and restores its shard."""

import json

import pytest

from lightning_green.resume.checkpoints import SHARDS_KEY, list_checkpoints, load_checkpoint, load_shard
from tests.helpers.ledgers import read_records
from tests.resume.test_ranks import ended, ending, start

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


@pytest.fixture(scope="module", params=["fsdp", "fsdp2"])
def never_stopped(request, tmp_path_factory):
    """Return the strategy, and what its ranks end with when nobody touches them."""
    folder = tmp_path_factory.mktemp("never_stopped")
    code, output = start(folder, strategy=request.param)
    assert code == 0, output
    first, second = ended(folder)
    assert first["weights"] != second["weights"]  # of which each has half
    return request.param, [first, second]


@pytest.mark.sampled(every=2)
def test_stopped_run_ends_like_an_uninterrupted_run(never_stopped, tmp_path):
    strategy, expected = never_stopped
    code, output = start(tmp_path, stop="exit@7", strategy=strategy)
    assert code == 75, output
    (stored,) = list_checkpoints(tmp_path / "run", 0)
    saved = load_checkpoint(stored.path)
    assert saved["state_dict"] == {}
    assert sorted(saved[SHARDS_KEY]) == [f"{stored.path.stem}.rank{rank}.shard" for rank in (0, 1)]
    weights = [load_shard(stored.path, rank)["tensors"] for rank in (0, 1)]
    assert (
        sum(one.numel() for part in weights for name, one in part.items() if "net.0" in name and "weight" in name) == 32
    )

    code, output = start(tmp_path, strategy=strategy)
    assert code == 0, output
    assert ended(tmp_path) == expected
    assert json.loads((tmp_path / "rank1.json").read_text())["first"][:2] == [0, 7]
    left = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert left == ["fit0-final.ckpt", "fit0-final.rank0.shard", "fit0-final.rank1.shard"]


@pytest.mark.sampled(every=2)
def test_last_complete_checkpoint_is_used_after_a_kill(never_stopped, tmp_path):
    strategy, expected = never_stopped
    assert start(tmp_path, stop="SIGKILL@10:0", strategy=strategy, EVERY="3m")[0] != 0
    older, newer = list_checkpoints(tmp_path / "run", 0)
    shards = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("*.shard"))
    assert shards == [f"{one.path.stem}.rank{rank}.shard" for one in (older, newer) for rank in (0, 1)]
    damaged = newer.path.with_name(shards[3])
    content = damaged.read_bytes()  # of the same size, so only rank 1 can detect it
    damaged.write_bytes(b"harm" + content[4:])
    code, output = start(tmp_path, strategy=strategy)
    assert code == 0, output
    assert f"The checkpoint {damaged} is damaged" in output
    assert f"The checkpoint before it is used: step {older.global_step}." in output
    assert ended(tmp_path) == expected


@pytest.mark.nightly
def test_kill_during_the_first_checkpoint_starts_from_scratch(never_stopped, tmp_path):
    strategy, expected = never_stopped
    assert start(tmp_path, stop="SIGKILL@4:0", strategy=strategy, EVERY="3m")[0] != 0
    for stored in list_checkpoints(tmp_path / "run", 0):
        stored.path.unlink()
    assert list((tmp_path / "run" / "checkpoints").glob("*.shard"))
    code, output = start(tmp_path, strategy=strategy)
    assert code == 0, output
    assert ended(tmp_path) == expected


@pytest.mark.nightly
def test_full_disk_of_one_rank_keeps_the_previous_checkpoint(never_stopped, tmp_path):
    strategy, expected = never_stopped
    code, output = start(tmp_path, stop="full@5:1", strategy=strategy, EVERY="4m")
    assert code == 0, output
    assert ended(tmp_path) == expected
    failed = [record for record in read_records(tmp_path / "run") if record["event"] == "checkpoint_failed"]
    assert len(failed) >= 2
    assert "rank1" in failed[0]["reason"] or "too large" in failed[0]["reason"]
    (stored,) = list_checkpoints(tmp_path / "run", 0)
    assert stored.global_step == 4
    assert load_checkpoint(stored.path)["global_step"] == 4


@pytest.mark.nightly
def test_changed_number_of_processes_is_refused(tmp_path):
    assert start(tmp_path, stop="exit@7", strategy="fsdp")[0] == 75
    code, output = start(tmp_path, strategy="fsdp", DEVICES="1")
    assert code == 1
    assert "world_size: 2 then, 1 now" in output
    code, output = start(tmp_path, strategy="fsdp", DEVICES="1", INEXACT="1")
    assert code == 1
    assert "this training has 1. Start it with the original number, or start from scratch with" in output
    assert ending(tmp_path) == "paused"
