import pytest
import torch
from torch.nn import functional

from lightning_green.compression.distillation import losses as losses_of

G = torch.Generator().manual_seed(0)
STUDENT, TEACHER = torch.randn(6, 5, generator=G, dtype=torch.double), torch.randn(6, 5, generator=G).double()
TARGET = torch.tensor([0, 1, 2, 3, 4, 0])
LOSSES = [
    lambda s, t: losses_of.soft_targets(s, t, 3.0),
    losses_of.standardized,
    lambda s, t: losses_of.decoupled(s, t, TARGET),
    losses_of.relational,
]


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_is_zero_at_the_teacher_and_positive_elsewhere(loss):
    assert loss(TEACHER, TEACHER).item() == pytest.approx(0, abs=1e-5)
    assert loss(STUDENT, TEACHER).item() > 0.01
    student = STUDENT.clone().requires_grad_()
    loss(student, TEACHER).backward()
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().sum() > 0


def test_soft_targets_match_hinton_equation():
    p, q = functional.softmax(STUDENT / 3, 1), functional.softmax(TEACHER / 3, 1)
    expected = 9 * (q * (q / p).log()).sum(1).mean()
    assert losses_of.soft_targets(STUDENT, TEACHER, 3.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_standardized_is_invariant_to_shift_and_scale():
    value = losses_of.standardized(STUDENT, TEACHER)
    assert losses_of.standardized(3 * STUDENT + 7, 0.1 * TEACHER - 2).item() == pytest.approx(value.item(), rel=1e-4)


def test_decoupled_with_the_weights_of_equation_6_equals_soft_targets():
    """Equation 6: KD is the part about the target plus (1 - p_target) times the part about the others."""
    t = 4.0
    target = torch.zeros(1, dtype=torch.long)
    s, q = STUDENT[:1], TEACHER[:1]
    left = 1 - functional.softmax(q / t, 1)[0, 0].item()
    value = losses_of.decoupled(s, q, target, t, alpha=1.0, beta=left)
    assert value.item() == pytest.approx(losses_of.soft_targets(s, q, t).item(), rel=1e-4)


def test_relational_is_invariant_to_rotation_and_scale():
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=G).double())
    assert losses_of.relational(3 * TEACHER @ rotation, TEACHER).item() == pytest.approx(0, abs=1e-5)


def test_positions_of_dense_predictions_count_as_samples():
    s, t = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (s, t)]
    assert losses_of.soft_targets(s, t).item() == pytest.approx(losses_of.soft_targets(*flat).item(), rel=1e-5)


def test_attention_depends_on_position_and_not_on_channel_count():
    maps = torch.rand(3, 8, 6, 6)
    assert losses_of.attention(torch.cat([maps, maps], 1), maps).item() == pytest.approx(0, abs=1e-9)
    assert losses_of.attention(maps.flip(2), maps).item() > 1e-5
    assert losses_of.attention(torch.rand(3, 4, 12, 12), maps).isfinite()
    assert losses_of.hint(torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 2, 2)).item() == 1
