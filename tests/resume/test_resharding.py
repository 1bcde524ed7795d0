import pytest
import torch

from lightning_green.resume.resharding import change_world_size

PARTS = [[["loops"], {"fit_loop": {}}], [["callbacks", "Mine"], 1]]
REMOVED = [["callbacks", "Other"], ["state_dict", "extra"]]


def checkpoint(ranks):
    counters = {"ready": 12, "started": 12, "processed": 12, "completed": 12}
    return {
        "state": {
            "ranks": [
                {"random": {"rank": rank}, "loaders": [{"taken": 12}], "parts": PARTS, "removed": REMOVED}
                for rank in range(ranks)
            ]
        },
        "loops": {"fit_loop": {"epoch_loop.batch_progress": {"current": counters}}},
    }


@pytest.mark.parametrize(("before", "after", "taken"), [(2, 4, 6), (4, 2, 24), (2, 1, 24), (3, 2, 18)])
def test_epoch_continues_after_the_same_number_of_samples(before, after, taken):
    saved = checkpoint(before)
    change_world_size(saved, "state", after)
    assert [one["loaders"][0]["taken"] for one in saved["state"]["ranks"]] == [taken] * after
    current = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    assert set(current.values()) == {taken}


def test_new_ranks_have_other_random_states():
    saved = checkpoint(2)
    outside = torch.get_rng_state()
    change_world_size(saved, "state", 4)
    states = [one["random"] for one in saved["state"]["ranks"]]
    assert states[:2] == [{"rank": 0}, {"rank": 1}]
    assert not torch.equal(states[2]["torch"], states[3]["torch"])
    assert torch.equal(torch.get_rng_state(), outside)


def test_only_differences_of_callbacks_are_kept():
    saved = checkpoint(2)
    change_world_size(saved, "state", 1)
    assert saved["state"]["ranks"][0]["parts"] == [[["callbacks", "Mine"], 1]]
    assert saved["state"]["ranks"][0]["removed"] == [["callbacks", "Other"]]
