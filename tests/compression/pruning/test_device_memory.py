import pytest
import torch
from torch import nn

from lightning_green.compression.pruning import channel_pruner, device_memory, removal_check
from lightning_green.compression.pruning.channel_graph import ChannelGraph
from lightning_green.compression.pruning.channel_pruner import ChannelPruner
from lightning_green.compression.pruning.device_memory import copied, within_memory
from tests.helpers.extras import needs_torch_pruning

X = torch.randn(1, 3, 8, 8)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 4))


def test_copy_has_its_own_tensors_on_the_device():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2, bias=False))
    model[2].weight = model[0].weight  # shared
    model[0].weight.requires_grad_(False)
    other = copied(model, torch.device("meta"))
    assert {tensor.device.type for tensor in other.state_dict().values()} == {"meta"}
    assert other[2].weight is other[0].weight
    assert not other[0].weight.requires_grad
    assert other[0].bias.requires_grad
    assert isinstance(other[0].bias, nn.Parameter)
    same = copied(model)
    assert same[0].weight is not model[0].weight
    assert torch.equal(same[0].weight, model[0].weight)


def test_trial_without_enough_memory_is_repeated_on_a_copy():
    model, seen = network(), []

    def compute(one, inputs):
        seen.append(one)
        if one is model:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return one(*inputs)

    torch.testing.assert_close(within_memory(compute, model, (X,)), model(X))
    assert len(seen) == 2

    def full(one, inputs):
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        within_memory(full, model, (X,))


@needs_torch_pruning
def test_network_that_fits_only_once_is_pruned_like_any_other(monkeypatch):
    """The accelerator has no memory for a copy: copies of the network itself fail, those of its copy do not."""
    expected, model = network(), network()
    pruner = ChannelPruner(0.5)
    pruner.update(expected, (X,), 1.0)
    real = device_memory.copied

    def limited(one, device=None):
        if one is model and device is None:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(one, device)

    for module in (channel_pruner, removal_check):
        monkeypatch.setattr(module, "copied", limited)
    monkeypatch.setattr("lightning_green.compression.pruning.channels.copied", limited)
    ChannelPruner(0.5).update(model, (X,), 1.0)
    assert {n: t.shape for n, t in model.state_dict().items()} == {n: t.shape for n, t in expected.state_dict().items()}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))


@needs_torch_pruning
def test_graph_of_channels_reports_too_little_memory_as_such():
    class Full(nn.Linear):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        ChannelGraph(Full(2, 2), (torch.ones(1, 2),))
