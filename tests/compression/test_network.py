import copy

import pytest
import torch
from torch import nn

from lightning_green.compression.network import InputRecorder, example_inputs, find_network, positional, uncompiled


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x, scale=1.0):
        return scale * self.second(self.first(x))


def test_find_network_returns_the_only_child_or_the_path():
    model = nn.Sequential(Two(), nn.ReLU())
    assert find_network(model, None) is model[0]
    assert find_network(model, "0.first") is model[0].first
    with pytest.raises(ValueError, match=r"`model` should be the dotted path .* it has 2 children .*first, second"):
        find_network(Two(), None)
    with pytest.raises(ValueError, match=r"`layers` should be the dotted path .*: first, second\), got 'third'"):
        find_network(Two(), "third", "layers")


def test_uncompiled_returns_the_wrapped_module():
    model = Two()
    assert uncompiled(torch.compile(model, backend="eager")) is model
    assert uncompiled(model) is model


def test_positional_orders_keyword_arguments():
    x = torch.ones(1, 2)
    assert positional(Two(), (), {"scale": 2.0, "x": x}) == (x, 2.0)


def test_recorder_keeps_the_shapes_of_the_first_call():
    model, recorder = nn.Linear(3, 2), InputRecorder()
    recorder.attach(model)
    copy.deepcopy(model)(torch.ones(9, 3))
    assert not recorder.has_seen_call()
    model(torch.ones(4, 3))
    model(torch.ones(5, 3))
    assert recorder.spec == [([4, 3], "float32")]
    assert recorder.has_seen_call()
    assert [x.shape for x in recorder.examples(torch.device("cpu"), batch=2)] == [(2, 3)]


def test_recorder_raises_for_inputs_that_are_not_tensors():
    model, recorder = Two(), InputRecorder()
    recorder.attach(model)
    model(torch.ones(1, 2), 2.0)
    with pytest.raises(ValueError, match=r"Two should be called with tensors only, got \(Tensor, float\)"):
        recorder.has_seen_call()


def test_example_inputs_use_no_random_generator():
    state = torch.get_rng_state()
    images, indices = example_inputs([([8, 3], "float32"), ([8], "int64")], torch.device("cpu"), batch=2)
    assert images.tolist() == torch.linspace(-1, 1, 6).view(2, 3).tolist()
    assert indices.tolist() == [0, 0]
    assert torch.equal(torch.get_rng_state(), state)
