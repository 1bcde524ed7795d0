import pytest
import torch

from lightning_green.resume.rank_differences import differing_parts, part_digests, set_parts, value_digest


def checkpoint(**changes):
    return {
        "epoch": 1,
        "loops": {"fit_loop": {"ready": 3}},
        "callbacks": {"A": {"n": 1}, "B": torch.zeros(1)},
        "state_dict": {"w": torch.zeros(3), "extra": {"seen": 2}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}],
    } | changes


def test_parts_that_differ_from_rank_zero_are_found():
    reference = part_digests(checkpoint())
    own = checkpoint(
        loops={"fit_loop": {"ready": 4}},
        callbacks={"A": {"n": 1}, "B": torch.ones(1), "C": 1},
        state_dict={"w": torch.ones(3), "extra": {"seen": 2}},
    )
    small, large = differing_parts(own, reference)
    assert [keys for keys, _ in small] == [["loops"], ["callbacks", "B"], ["callbacks", "C"]]
    assert [keys for keys, _ in large] == [["state_dict", "w"]]
    saved = checkpoint()
    set_parts(saved, [*small, *large])
    assert value_digest(saved) == value_digest(own)


def test_equal_checkpoints_have_no_differing_parts():
    assert differing_parts(checkpoint(), part_digests(checkpoint())) == ([], [])


def test_state_of_an_optimizer_is_one_part():
    states = [{"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"lr": 0.1}]}]
    _, large = differing_parts(checkpoint(optimizer_states=states), part_digests(checkpoint()))
    assert large == [(["optimizer_states", 0], states[0])]


def test_empty_state_of_a_sharded_optimizer_is_not_a_difference():
    assert differing_parts(checkpoint(optimizer_states=[{}]), part_digests(checkpoint())) == ([], [])


@pytest.mark.parametrize("elements", [0, 5, 300_000])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int8, torch.bool, torch.complex128]
)
def test_digest_of_a_tensor_depends_on_each_element_its_type_and_its_shape(elements, dtype):
    tensor = torch.zeros(elements, dtype=dtype)
    assert value_digest(tensor) == value_digest(tensor.clone())
    others = [tensor.reshape(-1, 1), tensor.to(torch.float16)]
    if elements:
        changed = tensor.clone()
        changed[-1] = 1
        others.append(changed)
    assert value_digest(tensor) not in [value_digest(other) for other in others]


def test_digest_of_objects_and_sparse_tensors():
    sparse = torch.eye(3).to_sparse()
    assert value_digest({"a": [sparse, lambda: None]}) == value_digest({"a": [sparse, lambda: None]})
    assert value_digest({1, 2}) != value_digest({1, 3})
