import pytest

from lightning_green.resume.checkpoints import STATE_KEY, STATE_VERSION
from lightning_green.resume.errors import InexactStateError
from lightning_green.resume.rank_state import select_rank_state


def checkpoint(ranks):
    counters = {"ready": 4, "started": 4, "processed": 4, "completed": 4}
    states = [
        {
            "loaders": [{"taken": 4}],
            "random": {},
            "point": "batch",
            "parts": [[["callbacks", "Mine"], rank]],
            "removed": [],
        }
        for rank in range(ranks)
    ]
    return {
        "callbacks": {"Mine": 0, "Other": "same"},
        "loops": {"fit_loop": {"epoch_loop.batch_progress": {"current": counters}}},
        STATE_KEY: {"version": STATE_VERSION, "point": "batch", "ranks": states},
    }


def test_state_of_this_rank_is_selected_with_its_callbacks():
    saved = checkpoint(2)
    assert select_rank_state(saved, 1, 2, is_sharded=False, allow_inexact=False)["point"] == "batch"
    assert saved["callbacks"] == {"Mine": 1, "Other": "same"}


def test_state_that_only_rank_zero_has_is_removed():
    saved = checkpoint(2)
    saved[STATE_KEY]["ranks"][1]["removed"] = [["callbacks", "Other"]]
    select_rank_state(saved, 1, 2, is_sharded=False, allow_inexact=False)
    assert saved["callbacks"] == {"Mine": 1}


def test_weights_of_this_rank_are_those_of_its_file():
    saved = checkpoint(2)
    saved["state_dict"] = {"w": 0, "same": 0}
    saved[STATE_KEY]["ranks"][1]["shard"] = {"parts": [[["state_dict", "w"], 1]]}
    own = select_rank_state(saved, 1, 2, is_sharded=False, allow_inexact=False)
    assert own["parts"] == [[["callbacks", "Mine"], 1], [["state_dict", "w"], 1]]
    assert saved["state_dict"] == {"w": 1, "same": 0}


def test_each_rank_has_its_own_boundary():
    saved = checkpoint(2)
    saved[STATE_KEY]["ranks"][1]["point"] = "epoch"
    assert select_rank_state(saved, 1, 2, is_sharded=False, allow_inexact=False)["point"] == "epoch"


def test_checkpoint_without_an_exact_state_has_none():
    assert select_rank_state({"state_dict": {}}, 0, 1, is_sharded=False, allow_inexact=False) is None


def test_state_of_another_layout_is_refused():
    saved = checkpoint(1)
    saved[STATE_KEY]["version"] = 1
    with pytest.raises(InexactStateError, match=rf"layout 1; this version reads {STATE_VERSION}"):
        select_rank_state(saved, 0, 1, is_sharded=False, allow_inexact=True)


@pytest.mark.parametrize(("is_sharded", "allow_inexact"), [(False, False), (True, False), (True, True)])
def test_changed_number_of_ranks_is_refused(is_sharded, allow_inexact):
    with pytest.raises(InexactStateError, match=r"states of 2 process\(es\), and this training has 4") as refused:
        select_rank_state(checkpoint(2), 0, 4, is_sharded, allow_inexact)
    assert ("allow_inexact=True" in str(refused.value)) is not is_sharded


def test_changed_number_of_ranks_is_converted_if_allowed():
    saved = checkpoint(2)
    assert select_rank_state(saved, 3, 4, is_sharded=False, allow_inexact=True)["loaders"] == [{"taken": 2}]
    assert len(saved[STATE_KEY]["ranks"]) == 4
