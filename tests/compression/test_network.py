import inspect

import pytest
import torch
from torch import nn

from lightning_green.compression.network import (
    ReplacedForward,
    find_network,
    kept_attributes,
    own_forward,
    replaced_forward,
    restored_modes,
    uncompiled,
)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.second(self.first(x))


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))


def test_find_network_returns_the_only_child_or_the_path():
    model = nn.Sequential(Two(), nn.ReLU())
    assert find_network(model, None) is model[0]
    assert find_network(model, "0.first") is model[0].first
    with pytest.raises(ValueError, match=r"`model` should be .* '' for Two itself, .* 2 children .*first, second"):
        find_network(Two(), None)
    with pytest.raises(ValueError, match=r"`layers` should be the dotted path .*: first, second\), got 'third'"):
        find_network(Two(), "third", "layers")


def test_find_network_returns_a_module_with_its_own_parameters():
    model = Bare()
    assert find_network(model, None) is model
    assert find_network(model, "") is model
    with pytest.raises(ValueError, match=r"`model` cannot be found, .* in `__init__` and not in `configure_model`"):
        find_network(nn.Sequential(nn.ReLU()), None)


def test_uncompiled_returns_the_wrapped_module():
    model = Two()
    assert uncompiled(torch.compile(model, backend="eager")) is model
    assert uncompiled(model) is model


def test_modes_are_restored_after_the_context():
    model = Two()
    model.first.eval()
    with restored_modes(model):
        model.eval()
    assert [module.training for module in (model, model.first, model.second)] == [True, False, True]


def test_own_forward_is_the_one_without_a_replacement():
    model, x = Two(), torch.ones(1, 2)
    plain = model(x)
    model.forward = ReplacedForward(None)
    assert torch.equal(own_forward(model)(x), plain)
    model.forward = ReplacedForward(lambda x: 2 * x)
    assert torch.equal(own_forward(model)(x), 2 * x)


def test_replaced_forward_computes_the_calls_and_is_undone():
    class Sum(nn.Module):
        def forward(self, one, other):
            return one + other

    network = Sum()
    with replaced_forward(network, lambda **inputs: inputs):
        assert network(one=1, other=2) == {"one": 1, "other": 2}
        assert list(inspect.signature(own_forward(network)).parameters) == ["one", "other"]
    assert "forward" not in network.__dict__
    network.forward = assigned = lambda x: x
    with replaced_forward(network, lambda x: -x):
        assert network(1) == -1
    assert network.forward is assigned


def test_attributes_are_kept_and_their_contents_too():
    model = Two()
    model.first.cache, model.second.steps, model.names = {"a": torch.ones(1)}, [1], {"x"}
    cache, first = model.first.cache, model.first.cache["a"]
    with kept_attributes(model):
        model.first.cache["b"] = torch.ones(1)
        model.first.cache["a"] = torch.zeros(1)
        model.second.steps = [2]
        model.names.add("y")
        model.second.new = torch.ones(2)
    assert model.first.cache is cache
    assert list(cache) == ["a"]
    assert cache["a"] is first
    assert (model.second.steps, model.names) == ([1], {"x"})
    assert not hasattr(model.second, "new")
