import pytest
import torch
from torch import nn

from lightning_green.compression import (
    prunable_parameters,
)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.norm = nn.LayerNorm(4)
        self.a = nn.Linear(4, 4)
        self.b = self.a  # used twice
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("causal_mask", torch.ones(4, 4))


def test_only_linear_and_convolutional_weights_are_pruned_once_each():
    assert list(prunable_parameters(Tied())) == ["a.weight"]
    assert list(prunable_parameters(Tied(), include=["norm.weight", "embedding"])) == [
        "embedding.weight",
        "norm.weight",
        "a.weight",
    ]
    with pytest.raises(ValueError, match=r"`exclude` should match something, but 'layer9\.\*' matches none"):
        prunable_parameters(Tied(), exclude=["layer9.*"])
    with pytest.raises(ValueError, match="no parameter to prune"):
        prunable_parameters(Tied(), exclude=["a"])
    with pytest.raises(ValueError, match="`__init__` and not in `configure_model`"):
        prunable_parameters(nn.ReLU())
