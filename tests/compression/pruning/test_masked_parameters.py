import pytest
import torch
from torch import nn

from lightning_green.compression.pruning.masked_parameters import MaskedParameters


def masked(dtype=torch.float32):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).to(dtype)
    made = MaskedParameters({"0.weight": model[0].weight, "1.weight": model[1].weight})
    made.masks = {"0.weight": model[0].weight > 0}
    return model, made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masked_weights_are_zero_and_the_others_do_not_change(dtype):
    model, made = masked(dtype)
    before, mask = [p.detach().clone() for p in model.parameters()], made.masks["0.weight"]
    made.apply()
    assert (model[0].weight[~mask] == 0).all()
    assert torch.equal(model[0].weight[mask], before[0][mask])
    assert all(torch.equal(p, b) for p, b in zip(list(model.parameters())[1:], before[1:], strict=True))


@pytest.mark.parametrize(
    ("make", "first", "second"),
    [
        (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), "momentum_buffer", None),
        (lambda p: torch.optim.Adam(p, 0.1), "exp_avg", "exp_avg_sq"),
    ],
)
def test_momentum_is_masked_and_second_moments_are_not(make, first, second):
    model, made = masked()
    optimizer = make(model.parameters())
    model(torch.ones(5, 4)).square().sum().backward()
    optimizer.step()
    made.apply_to_state(optimizer)
    state, mask = optimizer.state[model[0].weight], made.masks["0.weight"]
    assert (state[first][~mask] == 0).all()
    assert (state[first][mask] != 0).any()
    assert (optimizer.state[model[1].weight][first] != 0).any()
    if second is not None:
        assert (state[second][~mask] != 0).any()
        assert state["step"] == 1


def test_masks_of_other_parameters_or_shapes_raise():
    _, made = masked()
    with pytest.raises(ValueError, match="There is a mask for 'bias', but the model has no such parameter"):
        made.masks = {"bias": torch.ones(3)}
    with pytest.raises(ValueError, match=r"The mask of '0.weight' should have the shape \(3, 4\), got \(4, 3\)"):
        made.masks = {"0.weight": torch.ones(4, 3)}


def test_masks_follow_the_data_type_and_belong_to_the_module():
    model, made = masked()
    mask = made.masks["0.weight"].clone()
    assert made.belong_to(model)
    assert not made.belong_to(model[0])
    model.double()
    made.move_masks()
    made.apply()
    assert torch.equal(made.masks["0.weight"], mask)
    assert (model[0].weight[~mask] == 0).all()
