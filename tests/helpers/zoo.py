"""Small networks that mix channels with positions, heads, groups or each other, each with (8, 8) images or vectors."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


class Of(nn.Module):
    """A network of layers by name, and a function of the network and its inputs."""

    def __init__(self, function, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.function = function

    def forward(self, *inputs):
        return self.function(self, *inputs)


def images(stem, function, channels=16, **layers):
    """Return a network of images: a convolution, a function of its output, and a classifier of means."""
    head = nn.Linear(channels, 4)
    return Of(lambda s, x: s.head(function(s, s.stem(x)).mean((2, 3))), stem=stem, **layers, head=head)


def conv(inputs=3, outputs=16, size=3, **options):
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


def attention(s, x):
    """Attention of timm: one linear layer for queries, keys and values."""
    x = s.stem(x).flatten(2).transpose(1, 2)
    b, n, c = x.shape
    q, k, v = s.qkv(x).reshape(b, n, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
    x = x + s.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))
    return s.head((x + s.second(F.gelu(s.first(s.norm(x))))).mean(1))


def separate_attention(s, x):
    x = s.stem(x).flatten(2).transpose(1, 2)
    b, n, c = x.shape
    q, k, v = (layer(x).view(b, n, 4, c // 4).transpose(1, 2) for layer in (s.q, s.k, s.v))
    x = x + s.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))
    return s.head(x.mean(1))


def shuffled(x, groups=2):
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


def shuffle_units(s, x):
    """The units of ShuffleNetV2."""
    for branch in (s.unit, s.inner):
        one, other = F.relu(x).chunk(2, 1)
        x = shuffled(torch.cat([one, branch(other)], 1))
    return x


def gram(s, x):
    """Channels are multiplied with themselves: a smaller product has other entries for the next layer."""
    x = s.conv(F.relu(s.stem(x))).flatten(2)
    return s.head(F.relu(s.inner((x @ x.transpose(1, 2)).flatten(1))))


def halves(s, x):
    one, other = s.inner(F.relu(x)).chunk(2, 1)
    return torch.cat([one, F.relu(s.branch(other))], 1)


def squeeze(s, x):
    gate = torch.sigmoid(s.up(F.relu(s.down(x.mean((2, 3), keepdim=True)))))
    return s.inner(x * gate)


class WithBuffer(nn.Module):
    """A buffer with a number for each channel, and a parameter of no layer."""

    def __init__(self, kind):
        super().__init__()
        self.stem, self.inner, self.head = conv(), conv(16, 16), nn.Linear(16, 4)
        offset = torch.randn(1, 16, 1, 1)
        if kind == "buffer":
            self.register_buffer("offset", offset)
        else:
            self.offset = nn.Parameter(offset)

    def forward(self, x):
        return self.head(self.inner(F.relu(self.stem(x) + self.offset)).mean((2, 3)))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.one, self.other, self.head = conv(), conv(16, 16), conv(16, 16), nn.Linear(16, 4)
        self.other.weight = self.one.weight

    def forward(self, x):
        return self.head(self.other(F.relu(self.one(F.relu(self.stem(x))))).mean((2, 3)))


def normed(kind):
    return images(conv(), lambda s, x: F.relu(s.inner(F.relu(x))), inner=kind(conv(16, 16)))


def of_norm(norm, function=lambda s, x: s.inner(F.relu(s.norm(x)))):
    return images(conv(), function, norm=norm, inner=conv(16, 16))


def last(s, x):
    return s.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


NETWORKS = {
    "attention, joined": lambda: Of(
        attention,
        stem=nn.Conv2d(3, 16, 4, 4),
        norm=nn.LayerNorm(16),
        qkv=nn.Linear(16, 48),
        out=nn.Linear(16, 16),
        first=nn.Linear(16, 32),
        second=nn.Linear(32, 16),
        head=nn.Linear(16, 4),
    ),
    "attention, separate": lambda: Of(
        separate_attention,
        stem=nn.Conv2d(3, 16, 4, 4),
        q=nn.Linear(16, 16),
        k=nn.Linear(16, 16),
        v=nn.Linear(16, 16),
        out=nn.Linear(16, 16),
        head=nn.Linear(16, 4),
    ),
    "GLU": lambda: images(conv(), lambda s, x: s.inner(F.glu(x, 1)), inner=conv(8, 16)),
    "chunk": lambda: images(conv(), halves, inner=conv(16, 16), branch=conv(8, 8)),
    "split": lambda: images(
        conv(), lambda s, x: s.inner(torch.cat([F.relu(one) for one in x.split([4, 12], 1)], 1)), inner=conv(16, 16)
    ),
    "PixelShuffle": lambda: images(conv(), lambda s, x: s.inner(F.pixel_shuffle(x, 2)), inner=conv(4, 16)),
    "PixelUnshuffle": lambda: images(conv(), lambda s, x: s.inner(F.pixel_unshuffle(x, 2)), inner=conv(64, 16)),
    "channel shuffle": lambda: images(conv(), lambda s, x: s.inner(shuffled(F.relu(x))), inner=conv(16, 16)),
    "nn.ChannelShuffle": lambda: images(
        conv(), lambda s, x: s.inner(s.shuffle(F.relu(x))), shuffle=nn.ChannelShuffle(4), inner=conv(16, 16)
    ),
    "shuffle units": lambda: images(
        conv(), shuffle_units, unit=nn.Sequential(conv(8, 24), nn.ReLU(), conv(24, 8)), inner=conv(8, 8)
    ),
    "product of channels": lambda: Of(
        gram, stem=conv(), conv=conv(16, 8), inner=nn.Linear(64, 16), head=nn.Linear(16, 4)
    ),
    "flip of channels": lambda: images(conv(), lambda s, x: s.inner(x.flip(1)), inner=conv(16, 16)),
    "every other channel": lambda: images(conv(), lambda s, x: s.inner(x[:, ::2]), inner=conv(8, 16)),
    "transposed convolution": lambda: images(
        conv(), lambda s, x: s.inner(F.relu(s.up(F.relu(x)))), up=nn.ConvTranspose2d(16, 12, 2, 2), inner=conv(12, 16)
    ),
    "view before a transposed convolution": lambda: Of(
        lambda s, x: s.head(s.up(s.wide(s.stem(x).mean((2, 3))).view(-1, 8, 2, 2)).mean((2, 3))),
        stem=conv(),
        wide=nn.Linear(16, 32),
        up=nn.ConvTranspose2d(8, 12, 2, 2),
        head=nn.Linear(12, 4),
    ),
    "flatten": lambda: Of(
        lambda s, x: s.head(F.relu(s.inner(F.max_pool2d(s.stem(x), 4).flatten(1)))),
        stem=conv(),
        inner=nn.Linear(64, 16),
        head=nn.Linear(16, 4),
    ),
    "depthwise": lambda: images(
        conv(), lambda s, x: s.inner(s.depth(F.relu(x))), depth=conv(16, 16, groups=16), inner=conv(16, 16, 1)
    ),
    "grouped": lambda: images(
        conv(), lambda s, x: s.inner(F.relu(s.group(F.relu(x)))), group=conv(16, 16, groups=4), inner=conv(16, 16)
    ),
    "squeeze and excite": lambda: images(conv(), squeeze, down=conv(16, 8, 1), up=conv(8, 16, 1), inner=conv(16, 16)),
    "concatenation": lambda: images(
        conv(), lambda s, x: s.inner(torch.cat([x, s.branch(x)], 1)), branch=conv(16, 8), inner=conv(24, 16)
    ),
    "residual": lambda: images(
        conv(),
        lambda s, x: s.inner(x + s.second(F.relu(s.first(x)))),
        first=conv(16, 24),
        second=conv(24, 16),
        inner=conv(16, 16),
    ),
    "softmax over channels": lambda: images(conv(), lambda s, x: s.inner(x.softmax(1)), inner=conv(16, 16)),
    "mean over channels": lambda: images(conv(), lambda s, x: s.inner(x - x.mean(1, keepdim=True)), inner=conv(16, 16)),
    "batch norm": lambda: of_norm(nn.BatchNorm2d(16)),
    "instance norm": lambda: of_norm(nn.InstanceNorm2d(16, affine=True)),
    "group norm": lambda: of_norm(nn.GroupNorm(4, 16)),
    "layer norm of channels": lambda: of_norm(nn.LayerNorm(16), lambda s, x: s.inner(F.relu(last(s, x)))),
    "layer norm of all dimensions": lambda: of_norm(nn.LayerNorm((16, 8, 8))),
    "PReLU": lambda: of_norm(nn.PReLU(16)),
    "weight norm": lambda: normed(parametrizations.weight_norm),
    "weight norm, older": lambda: normed(nn.utils.weight_norm),
    "spectral norm": lambda: normed(parametrizations.spectral_norm),
    "spectral norm, older": lambda: normed(nn.utils.spectral_norm),
    "buffer": lambda: WithBuffer("buffer"),
    "parameter of no layer": lambda: WithBuffer("parameter"),
    "shared weight": Tied,
    "layer used twice": lambda: images(conv(), lambda s, x: s.inner(F.relu(s.inner(F.relu(x)))), inner=conv(16, 16)),
    "recurrent": lambda: Of(
        lambda s, x: s.head(s.inner(F.relu(s.stem(x)).flatten(2).transpose(1, 2))[0][:, -1]),
        stem=conv(),
        inner=nn.GRU(16, 16, batch_first=True),
        head=nn.Linear(16, 4),
    ),
    "nn.MultiheadAttention": lambda: Of(
        lambda s, x: s.head(s.inner(y := s.stem(x).flatten(2).transpose(1, 2), y, y)[0].mean(1)),
        stem=conv(),
        inner=nn.MultiheadAttention(16, 4, batch_first=True),
        head=nn.Linear(16, 4),
    ),
    "two outputs": lambda: Of(
        lambda s, x: (s.head(y := F.relu(s.stem(x)).mean((2, 3))), s.other(y)),
        stem=conv(),
        head=nn.Linear(16, 4),
        other=nn.Linear(16, 16),
    ),
    "draws random numbers": lambda: images(
        conv(), lambda s, x: s.inner(F.relu(x) + torch.randn_like(x[:1]) * 0.1), inner=conv(16, 16)
    ),
    "only in training": lambda: images(
        conv(), lambda s, x: s.inner(shuffled(x) if s.training else x), inner=conv(16, 16)
    ),
}
