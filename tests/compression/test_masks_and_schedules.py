import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_green.compression import (
    Granularity,
    MaskPruner,
    Moment,
    Ramp,
    Span,
    block_mask,
    erdos_renyi_sparsities,
    global_masks,
    measured_sparsity,
    n_m_mask,
    prunable_parameters,
    rigl_mask,
    sparsity_at,
    unstructured_mask,
)


@pytest.mark.parametrize("shape", ["constant", "linear", "cubic", "one_cycle"])
def test_a_schedule_rises_to_its_target(shape):
    values = [sparsity_at(u / 20, 0.8, shape, initial=0.1) for u in range(21)]
    assert values == sorted(values)
    assert values[-1] == 0.8
    assert values[0] == pytest.approx({"constant": 0.8, "one_cycle": 0.105}.get(shape, 0.1), abs=0.01)


def test_the_cubic_schedule_is_zhu_and_gupta_equation_1():
    assert sparsity_at(0.3, 0.9, "cubic", 0.2) == pytest.approx(0.9 + (0.2 - 0.9) * (1 - 0.3) ** 3)


@pytest.mark.parametrize(("text", "step"), [(0.25, 25), ("3ep", 30), (1.0, 100), ("0ep", 0)])
def test_a_moment_is_a_fraction_or_an_epoch(text, step):
    assert Moment.parse("begin", text).step(100, 10) == step


@pytest.mark.parametrize("bad", ["3", "ep", -0.1, 1.5, math.nan, "half"])
def test_a_wrong_moment_names_the_argument(bad):
    with pytest.raises(ValueError, match="`begin` should be"):
        Moment.parse("begin", bad)


def test_a_ramp_is_flat_outside():
    ramp = Ramp(2.0, 4.0, 0.25, 0.75)
    assert [ramp(u) for u in (0, 0.25, 0.5, 0.75, 1)] == [2, 2, 3, 4, 4]
    with pytest.raises(ValueError, match="`end` should not come before `begin`"):
        Ramp(0, 1, 0.5, 0.2)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 20), st.integers(0, 120))
def test_the_latest_moment_is_a_moment(begin, length, every, step):
    span = Span(begin, begin + length, every)
    latest = span.latest(step)
    moments = [*range(begin, begin + length, every), begin + length]
    assert latest == max([m for m in moments if m <= step], default=-1)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_masks_drop_an_exact_number_and_the_lowest(sparsity, seed):
    scores = torch.randint(0, 5, (7, 9), generator=torch.Generator().manual_seed(seed)).float()  # many ties
    mask = unstructured_mask(scores, sparsity)
    assert int((~mask).sum()) == round(sparsity * 63)
    if mask.any() and (~mask).any():
        assert scores[mask].min() >= scores[~mask].max()


def test_global_masks_compare_over_layers():
    masks = global_masks({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0, 4.0]])}, 0.5)
    assert masks["a"].tolist() == [False, False]
    assert masks["b"].tolist() == [[True, True]]


@pytest.mark.parametrize("shape", [(6, 8), (5, 8, 3, 3)])
def test_n_of_m_along_the_input_channels(shape):
    scores = torch.rand(shape)
    mask = n_m_mask(scores, 2, 4)
    groups = mask.movedim(1, -1).reshape(-1, 4)
    assert (groups.sum(1) == 2).all()
    kept, dropped = scores.movedim(1, -1).reshape(-1, 4), groups
    assert (kept.masked_fill(~dropped, 2).min(1).values >= kept.masked_fill(dropped, -1).max(1).values).all()
    with pytest.raises(ValueError, match="multiple of 4"):
        n_m_mask(torch.rand(4, 3, 3, 3), 2, 4)


def test_blocks_go_together_also_at_the_edges():
    scores = torch.rand(7, 5)
    mask = block_mask(scores, 0.5, 4, 2)
    for rows in (slice(0, 4), slice(4, 7)):
        for columns in (slice(0, 2), slice(2, 4), slice(4, 5)):
            block = mask[rows, columns]
            assert block.all() or not block.any()
    assert mask.reshape(-1).float().mean() < 1


@pytest.mark.parametrize("bad", ["4:2", "0:4", "2:2", "1x1", "channel", ""])
def test_an_unknown_granularity_lists_the_known(bad):
    with pytest.raises(ValueError, match="`granularity` should be 'unstructured', 'channels'"):
        Granularity.parse(bad)


def test_rigl_keeps_the_number_and_follows_the_gradient():
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0])
    mask = weight != 0
    gradient = torch.tensor([9.0, 9.0, 9.0, 9.0, 0.1, 5.0, 0.2, 0.3])
    assert rigl_mask(weight, mask, gradient, 0.25).tolist() == [False, True, True, True, False, True, False, False]
    assert int(rigl_mask(weight, mask, gradient, 1.0).sum()) == 4


def test_erk_has_the_wanted_density_and_spares_small_layers():
    shapes = {"stem": torch.Size([16, 3, 3, 3]), "big": torch.Size([256, 256, 3, 3]), "fc": torch.Size([10, 256])}
    sparsities = erdos_renyi_sparsities(shapes, 0.9)
    total = sum(math.prod(s) for s in shapes.values())
    assert sum(sparsities[n] * math.prod(s) for n, s in shapes.items()) / total == pytest.approx(0.9)
    assert 0 <= sparsities["stem"] <= sparsities["fc"] < sparsities["big"] < 1


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


def test_only_linear_and_convolutional_weights_once_each():
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


def test_targets_by_pattern_prune_those_alone_and_the_later_wins():
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, 10))
    pruner = MaskPruner(model, {"0": 0.9, "*.weight": 0.5, "1": 0.2}, Granularity.parse("unstructured"))
    pruner.update(1.0)
    pruner.apply()
    sparsity = measured_sparsity(dict(model.named_parameters()))
    assert {k: v for k, v in sparsity.items() if "weight" in k} == {"0.weight": 0.5, "1.weight": 0.2, "2.weight": 0.5}


def test_momentum_goes_with_the_weight_but_not_second_moments():
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
def test_what_is_gone_stays_gone(criterion):
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


def test_movement_keeps_what_moves_away_from_zero():
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, 5.0]])
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner = MaskPruner(model, 0.5, Granularity.parse("unstructured"), "movement")
    model.weight.grad = torch.tensor([[-1.0, 1.0]])  # the first grows, the second, though larger, shrinks
    pruner.accumulate_movement(optimizer)
    pruner.update(1.0)
    assert pruner.masked.masks["weight"].tolist() == [[True, False]]
