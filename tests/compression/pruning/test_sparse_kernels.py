"""Sparse kernels: what is converted, and why the rest is not."""

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_green.compression import n_m_mask, use_sparse_kernels
from lightning_green.compression.pruning import sparse_kernels
from lightning_green.compression.pruning.sparse_kernels import is_2_4

NEEDS_SPARSE_TENSOR_CORES = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="needs an NVIDIA GPU with sparse tensor cores",
)


def sparsify(network, *names):
    """Make the weights of these layers 2:4 sparse."""
    for name in names:
        weight = network.get_submodule(name).weight
        weight.data.mul_(n_m_mask(weight.detach().abs(), 2, 4))
    return network


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.second, self.unused = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 4)
        self.drop, self.calls = nn.Dropout(0.5), 0

    def forward(self, x):
        self.calls += 1
        assert not self.training
        return self.second(self.drop(self.first(x).relu()))


def test_is_2_4_needs_two_zeros_in_each_group_of_inputs():
    assert is_2_4(torch.tensor([[0.0, 1, 0, 2, 0, 0, 0, 0], [3, 0, 4, 0, 0, 0, 0, 1]]))
    assert not is_2_4(torch.tensor([[0.0, 1, 3, 2, 0, 0, 0, 0]]))
    assert not is_2_4(torch.zeros(4, 6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"mode": "fast"}, "`mode` should be one of eager, compiled, graph"), ({"least_speedup": 0.9}, "`least_speedup`")],
)
def test_wrong_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        use_sparse_kernels(Mlp(8), torch.randn(2, 8), **arguments)


def test_without_a_gpu_every_layer_stays_dense_with_its_reason(caplog):
    caplog.set_level(logging.INFO)
    network = sparsify(Mlp(8).train(), "first")
    before = copy.deepcopy(network.state_dict())
    layers = use_sparse_kernels(network, torch.randn(2, 5, 8))
    assert [(layer.name, layer.shape, layer.tokens, layer.reason) for layer in layers] == [
        ("first", (8, 8), 0, "it is not on an NVIDIA GPU"),
        ("second", (8, 8), 0, "its weight is not 2:4 sparse"),
        ("unused", (4, 8), 0, "its weight is not 2:4 sparse"),
    ]
    assert (
        "0 of 3 linear layers use sparse kernels; dense: `first` (it is not on an NVIDIA GPU); `second`" in caplog.text
    )
    assert network.training
    assert network.calls == 0, "attributes that the call has set are restored"
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.first._forward_pre_hooks


class OnGpu(nn.Linear):
    """A layer that claims to be on a GPU; its arithmetic is that of the CPU."""

    class Weight(nn.Parameter):
        device = SimpleNamespace(type="cuda")

    def __init__(self, width):
        super().__init__(width, width, dtype=torch.bfloat16)
        self.weight = OnGpu.Weight(self.weight.data)


@pytest.mark.parametrize(
    ("kernel", "speedups", "reason"),
    [
        (lambda weight: weight.clone(), 1.2, None),
        (lambda weight: weight.clone(), 1.0, "1.00 times as fast"),
        (lambda weight: 1.1 * weight, 1.2, "its outputs would differ by 0.0"),
        (lambda weight: weight * float("nan"), 1.2, "its outputs would differ by nan"),
        (None, 1.2, "its sparse kernel fails: unsupported shape"),
    ],
)
def test_layer_is_converted_if_it_is_faster_and_agrees(monkeypatch, kernel, speedups, reason):
    def converted(weight):
        if kernel is None:
            raise RuntimeError("unsupported shape\nmore lines")
        return kernel(weight)

    monkeypatch.setattr(sparse_kernels, "to_sparse_semi_structured", converted)
    monkeypatch.setattr(sparse_kernels, "_speedup", lambda *_: speedups)
    network = sparsify(nn.Sequential(OnGpu(16)), "0")
    (layer,) = use_sparse_kernels(network, torch.randn(64, 16, dtype=torch.bfloat16))
    if reason is None:
        assert layer.is_sparse
        assert (layer.speedup, layer.tokens) == (speedups, 64)
        assert not network[0].weight.requires_grad
    else:
        assert layer.reason.startswith(reason)
        assert isinstance(network[0].weight, OnGpu.Weight)


class NeedsDense(nn.Module):
    """A network whose second layer is given to an operation that has no sparse version in inference mode."""

    def __init__(self, problem):
        super().__init__()
        self.first, self.second, self.unused, self.problem = OnGpu(16), OnGpu(16), OnGpu(16), problem

    def forward(self, x):
        x = self.first(input=x)
        if not isinstance(self.second.weight, OnGpu.Weight) and torch.is_inference_mode_enabled():
            if self.problem == "raises":
                raise NotImplementedError("no sparse operation")
            return 1.5 * self.second(x)
        return self.second(x)


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        ("raises", "the network cannot be called with its sparse kernel: no sparse operation"),
        ("differs", "the outputs of the network would differ by 0.4"),
    ],
)
def test_layer_with_which_the_network_fails_stays_dense(monkeypatch, problem, reason):
    monkeypatch.setattr(sparse_kernels, "to_sparse_semi_structured", lambda weight: weight.clone())
    monkeypatch.setattr(sparse_kernels, "_speedup", lambda *_: 1.3)
    network = sparsify(NeedsDense(problem), "first", "second", "unused")
    layers = use_sparse_kernels(network, torch.randn(64, 16, dtype=torch.bfloat16))
    assert [layer.is_sparse for layer in layers] == [True, False, False]
    assert layers[1].reason.startswith(reason)
    assert layers[2].reason == "it is not called with these inputs"
    assert [type(module.weight) is OnGpu.Weight for module in network.children()] == [False, True, True]


@pytest.mark.gpu
@NEEDS_SPARSE_TENSOR_CORES
@pytest.mark.parametrize("mode", ["eager", "compiled", "graph"])
def test_only_faster_layers_are_converted_on_a_gpu(mode):
    torch.manual_seed(0)
    widths = ((4096, 11008, 4096), (128, 256, 256))
    large, small = (nn.Sequential(nn.Linear(a, b), nn.Linear(b, c)).cuda().bfloat16() for a, b, c in widths)
    for network, (width, *_) in zip((large, small), widths, strict=True):
        sparsify(network, "0", "1")
        x = torch.randn(4096, width, device="cuda", dtype=torch.bfloat16)
        before = network(x)
        layers = use_sparse_kernels(network, x, mode=mode)
        print([(mode, layer.shape, layer.speedup, layer.reason) for layer in layers])
        assert all(layer.speedup is None or (layer.speedup >= 1.02) == layer.is_sparse for layer in layers)
        difference = (network(x) - before).abs().mean() / before.std()
        assert float(difference) < 0.02
        if network is large and mode == "graph":
            assert layers[0].is_sparse, "11008 x 4096 at 4,096 tokens"
            assert use_sparse_kernels(network, x, mode=mode)[0].is_sparse, "a second call keeps it"
        if network is small and mode != "compiled":
            assert not any(layer.is_sparse for layer in layers), "a small matrix gains nothing"
