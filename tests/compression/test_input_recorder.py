import copy

import pytest
import torch
from torch import nn

from lightning_green.compression.call_description import CallDescription
from lightning_green.compression.input_recorder import InputRecorder
from lightning_green.compression.inputs import canonical, input_names
from tests.helpers.keyword_networks import Named

X = torch.arange(6.0).view(3, 2)
CPU = torch.device("cpu")


def test_recorder_prefers_the_first_call_in_training_mode():
    model, recorder = Named(), InputRecorder()
    recorder.attach(model)
    copy.deepcopy(model)(X)
    assert not recorder.has_seen_call()
    model.eval()(X)
    assert recorder.first.examples(CPU, 2)[0].shape == (2, 2)
    model.eval()(X[:1])
    assert recorder.first == CallDescription.of(model, (X,))
    model.train()(x=X, labels=torch.tensor([1, 0, 1]))
    model(X[:1])
    assert list(recorder.first.examples(CPU, 2)) == ["x", "labels"]
    recorder.attach(model)
    recorder.restore(CallDescription.of(model, (X, 2.0)).state())
    model(X)
    assert recorder.first.examples(CPU, 2)[1] == 2.0


def test_recorder_describes_each_kind_of_call_up_to_a_number():
    model, recorder = Named(), InputRecorder(kinds=3)
    recorder.attach(model)
    model.eval()(X[:2])
    model.train()(X, labels=torch.tensor([1, 0, 1]))
    model(X[:1], labels=torch.tensor([0]))
    with recorder.paused():
        model(X, 1.0)
    for scale in (2.0, 3.0):
        model.eval()(X, scale)
    calls = [(X[:2],), {"x": X, "labels": torch.tensor([1, 0, 1])}, (X, 2.0)]
    described = [CallDescription.of(model, inputs) for inputs in calls]
    assert recorder.calls == described
    assert recorder.first == described[1]


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
    assert recorder.first == CallDescription.of(model, (X, X))
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
    assert [len(call.leaves) for call in recorder.calls] == [1]


def test_call_that_raises_is_not_recorded():
    network, recorder = nn.Linear(2, 1), InputRecorder()
    recorder.attach(network)
    with pytest.raises(RuntimeError):
        network(torch.ones(1, 3))
    assert recorder.calls == []
    network(X)
    assert len(recorder.calls) == 1
