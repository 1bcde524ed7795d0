import numpy as np
import pytest
import torch
from torch.nn import functional

from lightning_green.compression.distillation import losses as losses_of
from lightning_green.compression.distillation.teacher_cache import TeacherCache, fingerprints

G = torch.Generator().manual_seed(0)
STUDENT, TEACHER = torch.randn(6, 5, generator=G, dtype=torch.double), torch.randn(6, 5, generator=G).double()
TARGET = torch.tensor([0, 1, 2, 3, 4, 0])
LOSSES = [
    lambda s, t: losses_of.soft_targets(s, t, 3.0),
    losses_of.standardised,
    lambda s, t: losses_of.decoupled(s, t, TARGET),
    losses_of.relational,
]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_zero_at_the_teacher_and_positive_elsewhere(loss):
    assert loss(TEACHER, TEACHER).item() == pytest.approx(0, abs=1e-5)
    assert loss(STUDENT, TEACHER).item() > 0.01
    student = STUDENT.clone().requires_grad_()
    loss(student, TEACHER).backward()
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().sum() > 0


def test_soft_targets_are_hintons_by_hand():
    p, q = functional.softmax(STUDENT / 3, 1), functional.softmax(TEACHER / 3, 1)
    expected = 9 * (q * (q / p).log()).sum(1).mean()
    assert losses_of.soft_targets(STUDENT, TEACHER, 3.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_standardised_does_not_see_shift_and_scale():
    value = losses_of.standardised(STUDENT, TEACHER)
    assert losses_of.standardised(3 * STUDENT + 7, 0.1 * TEACHER - 2).item() == pytest.approx(value.item(), rel=1e-4)


def test_decoupled_with_equal_weights_of_the_paper_is_soft_targets():
    """Equation 6: KD is the part about the target plus (1 - p_target) times the part about the others."""
    t = 4.0
    target = torch.zeros(1, dtype=torch.long)
    s, q = STUDENT[:1], TEACHER[:1]
    left = 1 - functional.softmax(q / t, 1)[0, 0].item()
    value = losses_of.decoupled(s, q, target, t, alpha=1.0, beta=left)
    assert value.item() == pytest.approx(losses_of.soft_targets(s, q, t).item(), rel=1e-4)


def test_relational_does_not_see_rotations_and_scale():
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=G).double())
    assert losses_of.relational(3 * TEACHER @ rotation, TEACHER).item() == pytest.approx(0, abs=1e-5)


def test_dense_predictions_are_samples():
    s, t = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (s, t)]
    assert losses_of.soft_targets(s, t).item() == pytest.approx(losses_of.soft_targets(*flat).item(), rel=1e-5)


def test_attention_sees_where_not_how_many_channels():
    maps = torch.rand(3, 8, 6, 6)
    assert losses_of.attention(torch.cat([maps, maps], 1), maps).item() == pytest.approx(0, abs=1e-9)
    assert losses_of.attention(maps.flip(2), maps).item() > 1e-5
    assert losses_of.attention(torch.rand(3, 4, 12, 12), maps).isfinite()
    assert losses_of.hint(torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 2, 2)).item() == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8, torch.int64, torch.float64])
def test_fingerprints_are_of_the_content(dtype):
    x = (torch.rand(500, 3, 4, 4, generator=G) * 200).to(dtype)
    keys = fingerprints(x)
    assert len(keys.unique()) == 500
    assert torch.equal(keys[7:9], fingerprints(x[7:9].clone()))
    changed = x.clone()
    changed[0, 2, 3, 3] += 1
    assert fingerprints(changed)[0] != keys[0]
    assert torch.equal(fingerprints(changed)[1:], keys[1:])
    swapped = x[:1].flip(3)
    assert fingerprints(swapped)[0] != keys[0]


class Teacher:
    def __init__(self):
        self.asked = 0

    def __call__(self, x):
        self.asked += len(x)
        return x.flatten(1)[:, :3] * 2


@pytest.mark.parametrize("folder", [False, True])
def test_the_cache_asks_once_and_answers_in_order(tmp_path, folder):
    cache, teacher = TeacherCache(tmp_path / "c" if folder else None), Teacher()
    x = torch.randn(2000, 4, generator=G)
    order = torch.randperm(2000, generator=G)
    for chosen in (order[:700], order[300:1500], order, torch.tensor([5, 5, 6])):
        expected = (x[chosen, :3] * 2).half().float()
        assert torch.equal(cache.get(x[chosen], teacher), expected)
    assert teacher.asked == len(cache) == 2000
    assert (cache.hits, cache.misses) == (400 + 1500 + 3, 2000)
    twice = torch.randn(1, 4).repeat(3, 1)
    assert torch.equal(cache.get(twice, teacher), (twice[:, :3] * 2).half().float())
    assert len(cache) == 2001
    if not folder:
        other = TeacherCache()
        other.load_state_dict(cache.state_dict())
        other.get(x, teacher)
        assert other.misses == 0


def test_a_torn_folder_loses_its_last_rows_alone(tmp_path):
    teacher = Teacher()
    x = torch.randn(50, 4, generator=G)
    TeacherCache(tmp_path, "a").get(x, teacher)
    values = tmp_path / "values.f16"
    values.write_bytes(values.read_bytes()[:-7])  # in the middle of the row before the last
    again = TeacherCache(tmp_path, "a")
    assert len(again) == 48
    assert torch.equal(again.get(x, teacher), (x[:, :3] * 2).half().float())
    assert again.misses == 2
    assert np.fromfile(tmp_path / "keys.i64", np.int64).size == 50
    with pytest.raises(ValueError, match="another teacher's outputs"):
        TeacherCache(tmp_path, "b")


def test_outputs_that_half_precision_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="should be finite and below 65504"):
        TeacherCache().get(torch.ones(2, 3), lambda x: x * 1e6)
