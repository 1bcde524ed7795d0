import collections
import copy

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from lightning_green.compression.call_description import CallDescription, check_dynamic, shapes_of

X = torch.arange(6.0).view(3, 2)
CPU = torch.device("cpu")


class Net(nn.Module):
    def forward(self, *parts, x=None, more=None, mask=None, flags=None, labels=None):
        return x


def described(inputs, dynamic=None):
    return CallDescription.of(Net(), inputs, dynamic)


def shapes(description):
    return shapes_of(description.tensors, "batch", "any")


def test_call_fits_whatever_its_values_and_its_number_of_samples():
    assert described((X, "a")).fits((X[:1] + 1, "a"))
    assert not described((X, "a")).fits((X, "b"))
    assert not described((X, 1)).fits((X, True))
    assert not described((X,)).fits((X[:, :1],))
    assert not described((X,)).fits((X.bool(),))
    assert described((X,)).fits((X.bfloat16(),))
    assert not described((X, torch.ones(2))).fits((X[:1], torch.ones(1)))
    assert not described((X, torch.ones(3))).fits((X[:1], torch.ones(2)))  # not of one number of samples
    assert not described((X,)).fits((X[0],))
    assert not described((X,)).fits((None,))
    assert not described({"x": X}).fits({"x": X, "labels": X})


def test_only_the_samples_and_named_dimensions_are_dynamic():
    tensors = (torch.tensor(1), torch.ones(4, 2), torch.ones(4), torch.ones(5))
    assert shapes(described(tensors)) == ({}, {0: "batch"}, {0: "batch"}, {})
    tokens = {"x": torch.ones(4, 9, 2), "mask": torch.ones(9, 9)}
    named = described(tokens, {"x": [1], "mask": [0, -1], "labels": [1]})
    assert shapes(named) == ({0: "batch", 1: "any"}, {0: "any", 1: "any"})
    assert named.fits({"x": torch.ones(2, 5, 2), "mask": torch.ones(5, 5)})


@pytest.mark.parametrize(
    ("dynamic", "message"),
    [
        ({"y": [1]}, "`dynamic` should name inputs of Net: x; got y"),
        ({"x": [2]}, r"`dynamic` should contain dimensions of `x`, which has 2, got \[2\]"),
    ],
)
def test_name_or_dimension_that_does_not_exist_is_rejected(dynamic, message):
    with pytest.raises(ValueError, match=message):
        described({"x": X}, dynamic)


def test_names_of_tensors_in_arguments_are_checked():
    inputs = {"x": X, "more": {"t": torch.ones(3, 5)}}
    with pytest.raises(ValueError, match="`dynamic` should name the tensors of `more`: more_t; got more"):
        described(inputs, {"more": [1]})
    assert shapes(described(inputs, {"more_t": [1]}))[1] == {0: "batch", 1: "any"}
    assert shapes(described({"x": X}, {"more_t": [1]})) == ({0: "batch"},)  # this call has left it out


@pytest.mark.parametrize("dynamic", [{"x": 1}, {"x": "1"}, {"x": [True]}, [1]])
def test_dynamic_that_is_no_dictionary_of_lists_is_rejected(dynamic):
    with pytest.raises(TypeError, match="`dynamic` should be a dictionary of lists of dimensions"):
        check_dynamic(dynamic)


def test_alternatives_have_tensors_that_are_as_large_as_the_batch_by_coincidence():
    description = described((X, torch.ones(3, 3), torch.ones(3), torch.ones(2)))
    assert [[tensor.has_samples for tensor in one.tensors] for one in description.alternatives()] == [
        [True, True, True, False],
        [True, False, True, False],
        [True, True, False, False],
        [True, False, False, False],
    ]
    assert len(list(described((X,)).alternatives())) == 1
    assert len(list(described((X,) * 9).alternatives())) == 8  # each is an export


def test_examples_have_the_described_structure_and_valid_integers():
    inputs = {"x": X, "more": [torch.tensor([[3, 9], [9, 3], [4, 4]]), (torch.tensor([True, False, True]), 2.0)]}
    description = described(inputs)
    state = torch.get_rng_state()
    made = description.examples(CPU, batch=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert description.fits(made)
    assert made["x"].tolist() == torch.linspace(-1, 1, 4).view(2, 2).tolist()
    assert made["more"][0].tolist() == [[3, 9], [9, 3]]
    assert made["more"][1][0].tolist() == [False, True]
    assert made["more"][1][1] == 2.0
    for batch, size in ((5, 5), (None, 3)):
        leaves = pytree.tree_leaves(description.examples(CPU, batch))
        assert [leaf.shape[0] for leaf in leaves if isinstance(leaf, torch.Tensor)] == [size] * 3


def test_description_is_restored_with_weights_only(tmp_path):
    description = described({"x": torch.ones(3, 4, 2), "flags": {"deep": [True, None, "a"]}}, {"x": [1]})
    torch.save(description.state(), tmp_path / "state.pt")
    assert CallDescription.from_state(torch.load(tmp_path / "state.pt", weights_only=True)) == description


def test_description_without_dynamic_dimensions_is_that_of_an_earlier_version():
    description = described((X, torch.ones(3), torch.ones(2), 1.0))
    state = copy.deepcopy(description.state())
    state["leaves"] = [leaf[:4] if isinstance(leaf, tuple) else leaf for leaf in state["leaves"]]
    assert CallDescription.from_state(state) == description


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((X, {1, 2}), "Net was called with set"),
        ((2.0,), "Net was called with no tensor"),
        ((collections.namedtuple("Unregistered", "x")(X),), "a container of another class"),
    ],
)
def test_other_inputs_are_rejected_with_the_argument(inputs, message):
    with pytest.raises(ValueError, match=f"`model` should be the dotted path of a network that is called .*{message}"):
        described(inputs)
