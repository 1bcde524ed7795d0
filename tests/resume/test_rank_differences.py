import pytest
import torch
from torch.nn.parameter import UninitializedBuffer

from lightning_green.resume import rank_differences
from lightning_green.resume.rank_differences import (
    differing_parts,
    missing_parts,
    part_digests,
    remove_parts,
    set_parts,
    value_digest,
)


def differences(own, reference):
    return differing_parts(own, part_digests(own), reference)


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
    small, large = differences(own, reference)
    assert [keys for keys, _ in small] == [["loops"], ["callbacks", "B"], ["callbacks", "C"]]
    assert [keys for keys, _ in large] == [["state_dict", "w"]]
    saved = checkpoint()
    set_parts(saved, [*small, *large])
    assert value_digest(saved) == value_digest(own)


def test_equal_checkpoints_have_no_differing_parts():
    assert differences(checkpoint(), part_digests(checkpoint())) == ([], [])


def test_state_that_only_rank_zero_has_is_removed():
    own = checkpoint(callbacks={"A": {"n": 1}}, state_dict={"w": torch.zeros(3)}, optimizer_states=[{}])
    reference = part_digests(checkpoint(of_all_ranks=1))
    assert differences(own, reference) == ([], [])
    removed = missing_parts(own, reference)
    assert removed == [["callbacks", "B"], ["state_dict", "extra"]]
    saved = checkpoint(of_all_ranks=1)
    remove_parts(saved, [*removed, ["callbacks", "removed before"]])
    assert value_digest(saved) == value_digest(
        own | {"optimizer_states": checkpoint()["optimizer_states"], "of_all_ranks": 1}
    )


def test_state_of_an_optimizer_is_one_part():
    states = [{"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"lr": 0.1}]}]
    _, large = differences(checkpoint(optimizer_states=states), part_digests(checkpoint()))
    assert large == [(["optimizer_states", 0], states[0])]


def test_empty_state_of_a_sharded_optimizer_is_not_a_difference():
    assert differences(checkpoint(optimizer_states=[{}]), part_digests(checkpoint())) == ([], [])


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


@pytest.mark.parametrize("elements", [9, 300_000])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.bfloat16, torch.int8])
def test_digest_depends_on_the_order_of_the_elements(elements, dtype):
    values = torch.arange(elements).to(dtype)
    swapped = values.clone()
    swapped[[1, -1]] = values[[-1, 1]]
    assert len({value_digest(one) for one in (values, values.flip(0), values.roll(1), swapped)}) == 4


def test_digest_of_a_tensor_of_several_chunks_depends_on_their_order(monkeypatch):
    monkeypatch.setattr(rank_differences, "_CHUNK_BYTES", 1 << 10)
    values = torch.arange(1000)
    assert value_digest(values) == value_digest(values.clone())
    assert value_digest(values) != value_digest(torch.cat([values[500:], values[:500]]))


def test_digest_of_objects():
    assert value_digest({"a": [lambda: None]}) == value_digest({"a": [lambda: None]})
    assert value_digest({1, 2}) != value_digest({1, 3})


@pytest.mark.parametrize(
    "convert",
    [
        torch.Tensor.to_sparse,
        torch.Tensor.to_sparse_csr,
        torch.Tensor.to_sparse_csc,
        lambda one: one.to_sparse_bsr((2, 2)),
    ],
    ids=["sparse", "csr", "csc", "bsr"],
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_digest_depends_on_the_elements_of_a_sparse_tensor(convert):
    values = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert value_digest(convert(values)) == value_digest(convert(values.clone()))
    assert value_digest(convert(values)) != value_digest(convert(values.flip(0)))
    assert value_digest(convert(values)) != value_digest(convert(values * 2))


def test_tensors_without_elements_have_digests():
    assert value_digest(UninitializedBuffer()) == value_digest(UninitializedBuffer())
    assert value_digest(torch.zeros(3, device="meta")) != value_digest(torch.zeros(4, device="meta"))
