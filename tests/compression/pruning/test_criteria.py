import pytest
import torch

from lightning_green.compression.pruning.criteria import (
    accumulate_movement_,
    gradient_scores,
    magnitude_scores,
    random_scores,
)

WEIGHT, GRADIENT = torch.tensor([[-3.0, 0.5], [0.0, 2.0]]), torch.tensor([[0.1, -4.0], [5.0, 1.0]])


def test_magnitude_and_gradient_scores():
    weight = WEIGHT.clone().requires_grad_()
    assert magnitude_scores(weight).tolist() == [[3.0, 0.5], [0.0, 2.0]]
    assert not magnitude_scores(weight).requires_grad
    scores = gradient_scores(weight, GRADIENT)
    assert scores.flatten().tolist() == pytest.approx([0.3, 2.0, 0.0, 2.0])
    assert not scores.requires_grad


def test_gradient_scores_are_the_change_of_a_linear_loss():
    weight = WEIGHT.clone().requires_grad_()
    inputs = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    loss = (weight * inputs).sum()
    loss.backward()
    for place in ((0, 0), (0, 1), (1, 1)):
        without = WEIGHT.clone()
        without[place] = 0
        change = abs((without * inputs).sum() - loss.detach())
        assert gradient_scores(weight, weight.grad)[place].item() == pytest.approx(change.item())


def test_random_scores_depend_on_the_generator_alone():
    first, second = (random_scores(WEIGHT, torch.Generator().manual_seed(1)) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(first, second)
    assert first.shape == WEIGHT.shape
    assert ((first >= 0) & (first < 1)).all()


def test_movement_scores_increase_for_weights_that_leave_zero():
    weight, scores = torch.tensor([1.0, -1.0, 1.0, 0.0]), torch.zeros(4)
    gradient = torch.tensor([-0.5, 0.5, 2.0, 3.0])  # a step moves the first two away from zero, the third towards it
    for _ in range(2):
        accumulate_movement_([scores], [weight], [gradient])
    assert scores.tolist() == [1.0, 1.0, -4.0, 0.0]
