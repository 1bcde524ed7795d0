import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.nn.parameter import UninitializedBuffer

from lightning_green.resume.module_state import (
    buffer_digests,
    changed_buffers,
    full_digest,
    pending_gradients,
    set_buffers,
    set_gradients,
    set_parameters,
    unsaved_buffers,
    weights_digest,
    without_buffers,
)


class Buffered(BoringModel):
    def __init__(self):
        super().__init__()
        self.register_buffer("saved", torch.zeros(2))
        self.register_buffer("unsaved", torch.zeros(3), persistent=False)


def test_only_changed_buffers_outside_the_state_dict_are_saved_and_set():
    module = Buffered()
    before = buffer_digests(module)
    assert unsaved_buffers(module, before) == {}
    module.saved += 1
    module.unsaved += 2
    saved = unsaved_buffers(module, before)
    assert {name: one.tolist() for name, one in saved.items()} == {"unsaved": [2, 2, 2]}
    other = Buffered()
    set_buffers(other, {**saved, "removed": torch.ones(1), "saved": torch.ones(5)})
    assert other.unsaved.tolist() == [2, 2, 2]
    assert other.saved.tolist() == [0, 0]  # of another shape


def test_buffer_outside_the_state_dict_that_has_grown_is_replaced():
    module = Buffered()
    set_buffers(module, {"unsaved": torch.ones(7)})
    assert module.unsaved.tolist() == [1] * 7
    assert "unsaved" not in module.state_dict()


class Late(BoringModel):
    """Creates a buffer with the first batch."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Module()
        self.inner.register_buffer("mask", None, persistent=False)


def test_buffer_that_is_filled_later_is_saved_and_set():
    module = Late()
    before = buffer_digests(module)
    module.inner.mask = torch.ones(3)
    other = Late()
    set_buffers(other, unsaved_buffers(module, before))
    assert other.inner.mask.tolist() == [1, 1, 1]
    assert "inner.mask" in dict(other.named_buffers())


class Lazy(BoringModel):
    """Its buffer gets a shape with the first batch."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", UninitializedBuffer(), persistent=False)


def test_buffer_that_is_uninitialized_in_the_new_process_is_set():
    module = Lazy()
    before = buffer_digests(module)
    assert unsaved_buffers(module, before) == {}
    module.scale.materialize((3,))
    module.scale.fill_(2)
    other = Lazy()
    set_buffers(other, unsaved_buffers(module, before))
    assert other.scale.tolist() == [2, 2, 2]
    assert "scale" in dict(other.named_buffers())


def test_buffers_that_differ_from_rank_zero_are_found():
    reference = buffer_digests(Buffered())
    module = Buffered()
    module.saved += 1
    changed = changed_buffers(module, buffer_digests(module), reference)
    assert {name: one.tolist() for name, one in changed.items()} == {"saved": [1, 1]}


def test_buffers_are_left_out_of_a_state_dict_unless_they_are_replaced():
    module = Buffered()
    module.register_buffer("sparse", torch.eye(2).to_sparse())
    module.inner = torch.nn.BatchNorm1d(2)
    module.shared = module.inner
    weights = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    average = {"saved": torch.ones(2), "inner.extra": 3}
    for changes, expected in (({}, {*weights, "sparse"}), (average, {*weights, "sparse", *average})):
        state_dict = module.state_dict() | changes
        found = without_buffers(module, state_dict)
        assert found.keys() == state_dict.keys()
        assert {name for name, value in found.items() if value is not None} == expected


def test_only_parameters_in_which_the_rank_differs_are_set():
    module = BoringModel()
    bias = module.layer.bias.detach().clone()
    set_parameters(module, [[["state_dict", "layer.weight"], torch.ones(2, 32)], [["callbacks", "layer.bias"], 1]])
    assert module.layer.weight.tolist() == [[1] * 32] * 2
    assert torch.equal(module.layer.bias, bias)


@pytest.mark.parametrize("change", [lambda one: one.double(), lambda one: one.reshape(2, 1), lambda one: one + 1])
def test_digest_depends_on_dtype_shape_and_content(change):
    module = Buffered()
    before = buffer_digests(module)
    module.saved = change(module.saved)
    assert {name for name, one in buffer_digests(module).items() if before[name] != one} == {"saved"}


def test_gradients_are_pending_only_in_manual_optimization():
    module = BoringModel()
    module.layer.weight.grad = torch.ones(2, 32)
    assert pending_gradients(module) == {}
    module.automatic_optimization = False
    saved = pending_gradients(module)
    assert set(saved) == {"layer.weight"}
    other = BoringModel()
    set_gradients(other, {**saved, "removed": torch.ones(1)})
    assert torch.equal(other.layer.weight.grad, torch.ones(2, 32))
    assert other.layer.bias.grad is None


def test_digest_of_the_weights_changes_with_them():
    torch.manual_seed(1)
    one, other = BoringModel(), BoringModel()
    other.load_state_dict(one.state_dict())
    assert weights_digest(one) == weights_digest(other)
    with torch.no_grad():
        other.layer.bias += 1
    assert weights_digest(one) != weights_digest(other)


def test_full_digest_covers_every_element_of_parameters_and_buffers():
    torch.manual_seed(0)
    module = Buffered()
    before = full_digest(module)
    assert full_digest(module) == before
    for tensor in (*module.parameters(), *module.buffers()):
        with torch.no_grad():
            tensor.reshape(-1)[-1] += 1
        assert full_digest(module) != before
        before = full_digest(module)
