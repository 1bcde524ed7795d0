import collections
import copy

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from lightning_green.compression.inputs import (
    InputRecorder,
    batch_dimensions,
    canonical,
    describe,
    examples,
    input_names,
    same_call,
)

X = torch.arange(6.0).view(3, 2)
CPU = torch.device("cpu")


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x, scale=None, mask=None, *, labels=None):
        return self.layer(x)


class Gathered(nn.Module):
    def forward(self, *parts, **options):
        return parts[0]


def test_canonical_form_does_not_depend_on_how_arguments_are_passed():
    network, mask = Named(), torch.ones(3)
    forms = [((X, None, mask), {}), ((X,), {"mask": mask}), ((), {"mask": mask, "x": X, "labels": None})]
    assert all(set(canonical(network, *form)) == {"x", "mask"} for form in forms)
    assert canonical(network, (), {"x": X}) == (X,)
    assert list(canonical(network, (), {"labels": mask, "x": X})) == ["x", "labels"]
    assert canonical(Gathered(), (X, mask), {}) == (X, mask)
    with pytest.raises(ValueError, match=r"network without `\*args` next to arguments by keyword, got Gathered"):
        canonical(Gathered(), (X,), {"mask": mask})


def test_same_call_compares_everything_except_values_and_the_number_of_samples():
    assert same_call((X, "a"), (X[:1] + 1, "a"))
    assert not same_call((X, "a"), (X, "b"))
    assert not same_call((X, 1), (X, True))
    assert not same_call((X,), (X[:, :1],))
    assert not same_call((X,), (X.bool(),))
    assert same_call((X,), (X.bfloat16(),))
    assert not same_call((X, torch.ones(2)), (X[:1], torch.ones(1)))
    assert not same_call((X,), (X[0],))
    assert not same_call((X,), (None,))
    assert not same_call({"x": X}, {"x": X, "labels": X})


def test_tensors_are_named_after_arguments_and_places():
    assert input_names(Named(), (X, 2.0, [X, {"a": X}])) == ["x", "mask_0", "mask_1_a"]
    assert input_names(Named(), {"x": X, "labels": X}) == ["x", "labels"]
    assert input_names(Gathered(), (X, X)) == ["parts_0", "parts_1"]


def test_only_dimensions_of_the_batch_are_dynamic():
    tensors = (torch.tensor(1), torch.ones(4, 2), torch.ones(4), torch.ones(5))
    assert batch_dimensions(tensors, "batch") == ({}, {0: "batch"}, {0: "batch"}, {})


def test_examples_have_the_described_structure_and_valid_integers():
    inputs = {"x": X, "more": [torch.tensor([[3, 9], [9, 3], [4, 4]]), (torch.tensor([True, False, True]), 2.0)]}
    spec = describe(inputs, "Net")
    state = torch.get_rng_state()
    made = examples(spec, CPU, batch=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert same_call(made, inputs)
    assert made["x"].tolist() == torch.linspace(-1, 1, 4).view(2, 2).tolist()
    assert made["more"][0].tolist() == [[3, 9], [9, 3]]
    assert made["more"][1][0].tolist() == [False, True]
    assert made["more"][1][1] == 2.0
    assert [t.shape[0] for t in pytree.tree_leaves(examples(spec, CPU, batch=5)) if isinstance(t, torch.Tensor)] == [
        5
    ] * 3


def test_description_is_loaded_with_weights_only(tmp_path):
    spec = describe({"x": X, "flags": {"deep": [True, None, "a"]}}, "Net")
    torch.save(spec, tmp_path / "spec.pt")
    assert torch.load(tmp_path / "spec.pt", weights_only=True) == spec


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
        describe(inputs, "Net")


def test_recorder_prefers_the_first_call_in_training_mode():
    model, recorder = Named(), InputRecorder()
    recorder.attach(model)
    copy.deepcopy(model)(X)
    assert not recorder.has_seen_call()
    model.eval()(X)
    assert recorder.examples(CPU, 2)[0].shape == (2, 2)
    model.eval()(X[:1])
    assert recorder.spec == describe((X,), "Named")
    model.train()(x=X, labels=torch.tensor([1, 0, 1]))
    model(X[:1])
    assert list(recorder.examples(CPU, 2)) == ["x", "labels"]
    recorder.attach(model)
    recorder.restore(describe((X, 2.0), "Named"))
    model(X)
    assert recorder.examples(CPU, 2)[1] == 2.0


def test_recorder_describes_each_kind_of_call_up_to_a_number():
    model, recorder = Named(), InputRecorder(kinds=3)
    recorder.attach(model)
    model.eval()(X[:2])
    model.train()(X, labels=torch.tensor([1, 0, 1]))
    model(X, labels=torch.tensor([0]))
    with recorder.paused():
        model(X, 1.0)
    for scale in (2.0, 3.0):
        model.eval()(X, scale)
    described = [describe((X[:2],), ""), describe({"x": X, "labels": torch.tensor([1, 0, 1])}, "")]
    assert recorder.calls == [*described, describe((X, 2.0), "")]
    assert recorder.spec == described[1]


def test_recorder_raises_for_inputs_of_other_types_and_for_a_network_that_is_not_called():
    model, recorder = Named(), InputRecorder()
    recorder.attach(model)
    model.layer(X)
    with pytest.raises(ValueError, match="`model` should be a network that training_step calls, but Named has not"):
        recorder.require_call(model)
    model(X, mask={1})
    with pytest.raises(ValueError, match="Named was called with set"):
        recorder.has_seen_call()


def test_unsupported_call_does_not_hide_a_later_one():
    model, recorder = Named(), InputRecorder()
    recorder.attach(model)
    model.eval()(X, mask={1})
    model.train()(X)
    assert recorder.has_seen_call()
    with pytest.raises(ValueError, match="Named was called with set"):
        recorder.require_supported()


def test_signature_is_that_of_the_forward_of_the_object():
    model, recorder = Named(), InputRecorder()
    model.forward = lambda inputs, extra=None: inputs
    recorder.attach(model)
    model(X, extra=X)
    assert recorder.spec == describe((X, X), "Named")
    assert input_names(model, (X, X)) == ["inputs", "extra"]
    with pytest.raises(ValueError, match=r"`forward` accepts .* but that of Named does not: .*unexpected.*'scale'"):
        canonical(model, (X,), {"scale": 1.0})


def test_call_of_another_method_through_forward_is_not_recorded():
    class Module(nn.Linear):
        def training_step(self, batch, batch_idx):
            return self(batch[0])

    module, recorder = Module(2, 1), InputRecorder(2)
    recorder.attach(module)

    def redirected(*args):  # Lightning's DDP does this
        module.forward = plain
        return module.training_step(*args)

    plain, module.forward = module.forward, redirected
    module([X, torch.zeros(3)], 0)
    recorder.require_supported()
    assert [len(call["leaves"]) for call in recorder.calls] == [1]


def test_call_that_raises_is_not_recorded():
    network, recorder = nn.Linear(2, 1), InputRecorder()
    recorder.attach(network)
    with pytest.raises(RuntimeError):
        network(torch.ones(1, 3))
    assert recorder.calls == []
    network(X)
    assert len(recorder.calls) == 1
