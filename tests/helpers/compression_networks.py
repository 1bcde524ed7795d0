"""Small networks with residuals, a reused activation, depthwise convolutions and concatenation."""

import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()  # one object, used twice
        self.down = None
        if stride != 1 or inputs != outputs:
            self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.down is None else self.down(x)))


class SmallResNet(nn.Module):
    def __init__(self, width=8, classes=4, channels=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.layers = nn.Sequential(Residual(width, width), Residual(width, 2 * width, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x):
        return self.fc(torch.flatten(self.pool(self.layers(self.stem(x))), 1))


class Mixed(nn.Module):
    """Depthwise convolution, hardswish, SiLU, concatenation, batch norm with another eps, dropout."""

    def __init__(self, width=8, classes=4):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=1e-3, momentum=0.03)
        self.depthwise = nn.Conv2d(width, width, 3, 1, 1, groups=width)
        self.left = nn.Conv2d(width, width, 1)
        self.right = nn.Conv2d(width, width, 3, 1, 1)
        self.dropout = nn.Dropout(0.2)
        self.hidden = nn.Linear(2 * width, 16)
        self.norm = nn.LayerNorm(16)
        self.fc = nn.Linear(16, classes)

    def forward(self, x):
        x = nn.functional.hardswish(self.bn(self.stem(x)))
        x = nn.functional.silu(self.depthwise(x))
        x = torch.cat([self.left(x), self.right(x)], 1).mean((2, 3))
        return self.fc(self.dropout(nn.functional.relu(self.norm(self.hidden(x)))))


class Inception(nn.Module):
    """In-place operations, a layer used twice, squeeze and excite, max pooling, batch norm on a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding="same")
        self.bn = nn.BatchNorm2d(8, eps=0.5)
        self.shared = nn.Conv2d(8, 8, 1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.block = Residual(8, 8)
        self.hidden = nn.Linear(8, 16)
        self.norm = nn.BatchNorm1d(16)
        self.fc = nn.Linear(16, 4)

    def forward(self, x):
        x = nn.functional.relu_(self.bn(self.stem(x)))
        x = nn.functional.max_pool2d(self.shared(self.shared(x)), 2)
        x = x * torch.sigmoid(self.gate(nn.functional.adaptive_avg_pool2d(x, 1)))
        y = self.block(x)
        y += x
        return self.fc(nn.functional.relu(self.norm(self.hidden(y.mean((2, 3))))))


def count(model):
    return sum(p.numel() for p in model.parameters())
