import copy

import pytest
import torch
from torch import nn

from lightning_green.compression.distillation.teachers import Ensemble, load_teacher
from tests.helpers.compression_networks import SmallResNet

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_modules_and_callables_are_returned():
    module = nn.Linear(2, 2)
    assert load_teacher(module) is module
    assert load_teacher(torch.relu) is torch.relu
    with pytest.raises(TypeError, match="`teacher` should be a module, a callable or the path of a checkpoint, got 3"):
        load_teacher(3)
    with pytest.raises(ValueError, match="`teacher_model` is for a teacher that is a checkpoint"):
        load_teacher(module, nn.Linear(2, 2))


def test_several_teachers_are_an_ensemble():
    ensemble = load_teacher([nn.Linear(2, 2), torch.relu])
    assert isinstance(ensemble, Ensemble)
    assert len(list(ensemble.parameters())) == 2
    for empty in ([], [nn.Linear(2, 2), "teacher.ckpt"]):
        with pytest.raises(TypeError, match="`teacher` should contain modules or callables"):
            load_teacher(empty)


@pytest.mark.parametrize("prefix", ["", "net.", "module.student.net."])
@pytest.mark.parametrize("key", [None, "state_dict"])
def test_checkpoint_is_loaded_without_its_prefix(tmp_path, prefix, key):
    network = SmallResNet().eval()
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()} | {"other.weight": torch.ones(2)}
    torch.save(state if key is None else {key: state, "epoch": 1}, tmp_path / "teacher.ckpt")
    loaded = load_teacher(tmp_path / "teacher.ckpt", SmallResNet())
    assert torch.equal(loaded.eval()(X), network(X))


def test_checkpoint_may_have_fewer_channels(tmp_path):
    torch.save(SmallResNet(width=4).state_dict(), tmp_path / "teacher.ckpt")
    loaded = load_teacher(str(tmp_path / "teacher.ckpt"), SmallResNet(width=8))
    assert loaded.stem[0].out_channels == 4
    assert loaded(X).shape == (2, 4)


def test_checkpoint_of_another_network_raises(tmp_path):
    path = tmp_path / "teacher.ckpt"
    torch.save(SmallResNet(width=16).state_dict(), path)
    for architecture in (SmallResNet(width=8), nn.Linear(3, 2)):
        before = copy.deepcopy(architecture.state_dict())
        with pytest.raises(
            ValueError, match=r"`teacher_model` should be the network of .* does not contain the tensors"
        ):
            load_teacher(path, architecture)
        assert all(torch.equal(tensor, before[name]) for name, tensor in architecture.state_dict().items())
    with pytest.raises(ValueError, match=r"`teacher_model` should be the network that .* got None"):
        load_teacher(path)
