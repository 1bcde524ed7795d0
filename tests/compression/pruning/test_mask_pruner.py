import pytest
import torch
from torch import nn

from lightning_green.compression import (
    Granularity,
    MaskPruner,
    measured_sparsity,
)


def test_targets_by_pattern_prune_only_matches_and_the_later_pattern_wins():
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, 10))
    pruner = MaskPruner(model, {"0": 0.9, "*.weight": 0.5, "1": 0.2}, Granularity.parse("unstructured"))
    pruner.update(1.0)
    pruner.apply()
    sparsity = measured_sparsity(dict(model.named_parameters()))
    assert {k: v for k, v in sparsity.items() if "weight" in k} == {"0.weight": 0.5, "1.weight": 0.2, "2.weight": 0.5}


def test_apply_zeroes_momentum_but_not_second_moments():
    model = nn.Linear(20, 20)
    optimizer = torch.optim.Adam(model.parameters())
    pruner = MaskPruner(model, 0.5, Granularity.parse("unstructured"))
    model(torch.randn(8, 20)).square().sum().backward()
    optimizer.step()
    pruner.update(1.0)
    pruner.apply(optimizer)
    state = optimizer.state[model.weight]
    assert (state["exp_avg"][model.weight == 0] == 0).all()
    assert (state["exp_avg_sq"] != 0).all()


@pytest.mark.parametrize("criterion", ["random", "movement", "gradient", "magnitude"])
def test_pruned_weights_stay_zero(criterion):
    model = nn.Linear(30, 30)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner = MaskPruner(model, 0.8, Granularity.parse("unstructured"), criterion)
    gone = torch.zeros(30, 30, dtype=torch.bool)
    for progress in (0.2, 0.5, 1.0):
        optimizer.zero_grad()
        model(torch.randn(8, 30)).square().sum().backward()
        pruner.accumulate_movement(optimizer)
        pruner.update(progress)
        optimizer.step()
        pruner.apply(optimizer)
        assert (model.weight[gone] == 0).all()
        gone = model.weight == 0
    assert int(gone.sum()) == 720


def test_movement_keeps_weights_that_move_away_from_zero():
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, 5.0]])
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner = MaskPruner(model, 0.5, Granularity.parse("unstructured"), "movement")
    model.weight.grad = torch.tensor([[-1.0, 1.0]])  # the first grows, the second, though larger, shrinks
    pruner.accumulate_movement(optimizer)
    pruner.update(1.0)
    assert pruner.masked.masks["weight"].tolist() == [[True, False]]
