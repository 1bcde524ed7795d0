"""Teachers and students for tests of distillation, and a record of the logits that are compared."""

import torch
from torch import nn
from torch.nn import functional

from tests.helpers.compression_fits import Lit, Net, loader


class Counted(Net):
    def __init__(self, width=16):
        super().__init__(width)
        self.samples = 0

    def forward(self, x):
        self.samples += len(x)
        return super().forward(x)


def teacher(width=16):
    torch.manual_seed(7)
    net = Counted(width)
    with torch.no_grad():
        for _ in range(20):
            net(torch.randn(32, 3, 8, 8))  # running statistics
    net.samples = 0
    return net


def record_logits(callback):
    """Return a list to which the losses append a copy of the student's and the teacher's logits of each batch."""
    seen, values = [], callback.losses.values

    def spy(logits, *arguments):
        seen.append([tensor.detach().clone() for tensor in logits])
        return values(logits, *arguments)

    callback.losses.values = spy
    return seen


def outputs(network, batches=6):
    """Return the outputs of a network for each batch of `loader`."""
    with torch.no_grad():
        return [network(x) for x, _ in list(loader())[:batches]]


class Segments(Lit):
    """Dense predictions, with a network that is called by keyword."""

    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(3, 4, 1)

    def training_step(self, batch):
        return functional.cross_entropy(self.net(input=batch[0]), batch[1][:, None, None].expand(-1, 8, 8))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Masked(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.fc = nn.Linear(192, classes)

    def forward(self, x, mask=None):
        x = x.flatten(1)
        return self.fc(x if mask is None else x * mask)


class LitMasked(Lit):
    def __init__(self, net=None):
        super().__init__()
        self.net = net or Masked()

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self.net(x=batch[0], mask=torch.zeros(192)), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class LitPositional(LitMasked):
    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self.net(batch[0]), batch[1])
