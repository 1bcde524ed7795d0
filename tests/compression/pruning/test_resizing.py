import pytest
import torch
from torch import nn

from lightning_green.compression import ChannelPruner, load_pruned, resize_to
from tests.helpers.compression_networks import Mixed, Residual, SmallResNet
from tests.helpers.extras import needs_torch_pruning

pytestmark = needs_torch_pruning
X = torch.randn(2, 3, 16, 16)


class Everything(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 8, 2)
        self.act = nn.PReLU(8)
        self.block = Residual(8, 16, 2)
        self.depthwise = nn.Conv2d(16, 32, 3, groups=16)
        self.fc = nn.Linear(32, 16)
        self.norm = nn.LayerNorm(16)
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        x = self.depthwise(self.block(self.act(self.up(x)))).mean((2, 3))
        return self.out(self.norm(self.fc(x)))


@pytest.mark.parametrize("network", [SmallResNet, Mixed, Everything])
def test_load_pruned_restores_a_pruned_model(network, tmp_path):
    model = network()
    ChannelPruner(0.4).update(model, (X[:1],), 1.0)
    torch.save({"state_dict": {f"net.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "x.ckpt")
    again = load_pruned(network(), tmp_path / "x.ckpt", prefix="net.")
    assert repr(again) == repr(model)
    assert torch.equal(again.eval()(X), model.eval()(X))
    with pytest.raises(ValueError, match="`prefix` should be the prefix of a key"):
        load_pruned(network(), tmp_path / "x.ckpt", prefix="other.")


def test_resize_to_equal_shapes_changes_nothing():
    model = SmallResNet()
    parameters = list(model.parameters())
    assert not resize_to(model, model.state_dict())
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
