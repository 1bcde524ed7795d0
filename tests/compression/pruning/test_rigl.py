import math

import pytest
import torch

from lightning_green.compression import (
    erdos_renyi_sparsities,
    rigl_mask,
)


def test_rigl_keeps_the_number_of_weights_and_grows_by_gradient():
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0])
    mask = weight != 0
    gradient = torch.tensor([9.0, 9.0, 9.0, 9.0, 0.1, 5.0, 0.2, 0.3])
    assert rigl_mask(weight, mask, gradient, 0.25).tolist() == [False, True, True, True, False, True, False, False]
    assert int(rigl_mask(weight, mask, gradient, 1.0).sum()) == 4


def test_erk_reaches_the_target_density_and_keeps_small_layers_denser():
    shapes = {"stem": torch.Size([16, 3, 3, 3]), "big": torch.Size([256, 256, 3, 3]), "fc": torch.Size([10, 256])}
    sparsities = erdos_renyi_sparsities(shapes, 0.9)
    total = sum(math.prod(s) for s in shapes.values())
    assert sum(sparsities[n] * math.prod(s) for n, s in shapes.items()) / total == pytest.approx(0.9)
    assert 0 <= sparsities["stem"] <= sparsities["fc"] < sparsities["big"] < 1
