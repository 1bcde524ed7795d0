import functools

import pytest
import torch
from torch import nn

from lightning_green.compression.distillation.teacher_outputs import TeacherOutputs
from lightning_green.compression.distillation.teachers import Ensemble
from lightning_green.compression.outputs import logits_of


def test_logits_are_those_of_the_module_in_evaluation_mode():
    teacher = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9))
    outputs = TeacherOutputs(teacher, lambda output: 2 * output, "32")
    outputs.prepare(torch.device("cpu"), nn.Linear(1, 1))
    assert not teacher[1].training
    x = torch.randn(5, 4)
    logits = outputs.logits((x,), {})
    assert torch.allclose(logits, 2 * teacher[0](x))
    assert not logits.requires_grad
    assert not logits.is_inference()
    assert outputs.saved_seconds() == 0.0
    assert outputs.state_dict() == {"cache": {}, "counts": {}}


class Modes(nn.Module):
    """Records its mode in each call."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(self.training)
        return x


def test_layers_of_the_student_are_in_evaluation_mode_during_calls_only():
    shared, own = Modes(), Modes()
    outputs = TeacherOutputs(nn.Sequential(shared, own), lambda output: output, "32")
    outputs.logits((torch.ones(2, 1),), {})
    assert own.training
    outputs.prepare(torch.device("cpu"), nn.Sequential(shared))
    outputs.logits((torch.ones(2, 1),), {})
    assert shared.training
    assert not own.training
    assert shared.seen == own.seen == [False, False]


def test_teacher_that_does_not_accept_the_arguments_raises():
    x = torch.ones(2, 4)
    outputs = TeacherOutputs(nn.Linear(4, 2), lambda output: output, "32")
    with pytest.raises(ValueError, match=r"`teacher` should accept .* \(2 by position\), but it cannot: too many"):
        outputs.logits((x, x), {})
    with pytest.raises(ValueError, match=r"\(1 by position, mask\), but it cannot: got an unexpected"):
        outputs.logits((x,), {"mask": x})


def test_cache_computes_each_sample_once_and_is_restored():
    calls = []

    def teacher(x, more=None):
        calls.append(len(x))
        return x[:, :2]

    outputs = TeacherOutputs(teacher, lambda output: output, "32")
    outputs.open_cache("memory", 0)
    x = torch.randn(6, 4)
    first = outputs.logits((x,), {})
    assert torch.equal(outputs.logits((x,), {}), first)
    assert calls == [6]
    assert outputs.saved_seconds() > 0
    restored = TeacherOutputs(teacher, lambda output: output, "32")
    restored.open_cache("memory", 0)
    restored.load_state_dict(outputs.state_dict())
    assert torch.equal(restored.logits((x,), {}), first)
    assert calls == [6]
    assert (restored.cache.hits, restored.cache.misses) == (12, 6)
    with pytest.raises(ValueError, match="`cache` needs a network with one input, got 2"):
        restored.logits((x, x), {})
    with pytest.raises(ValueError, match="`cache` needs a network with one tensor as its input, got list"):
        restored.logits(([x],), {})


def test_unknown_precision_raises():
    with pytest.raises(ValueError, match="`precision` should be one of '32', 'bf16', '16', got '8'"):
        TeacherOutputs(nn.Linear(1, 1), lambda output: output, "8")


def test_logits_of_several_teachers_are_averaged():
    torch.manual_seed(0)
    dropout = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5))
    members = [nn.Linear(2, 3), dropout, lambda x: {"logits": x[:, :1].repeat(1, 3)}]
    outputs = TeacherOutputs(Ensemble(members), functools.partial(logits_of, argument="teacher_output"), "32")
    outputs.prepare(torch.device("cpu"), nn.Linear(1, 1))
    x = torch.randn(5, 2)
    expected = (members[0](x) + members[1][0](x) + x[:, :1]) / 3
    torch.testing.assert_close(outputs.logits((x,), {}), expected)
    outputs.open_cache("memory", 0)
    for _ in range(2):
        torch.testing.assert_close(outputs.logits((x,), {}), expected, atol=1e-3, rtol=1e-3)
    assert outputs.cache.hits == 5


def test_identity_of_the_cache_covers_weights_output_function_and_precision():
    def identity(members=(0,), scale=1.0, precision="32", output=None):
        teachers = []
        for seed in members:
            torch.manual_seed(seed)
            teachers.append(nn.Linear(2, 3))
        outputs = TeacherOutputs(
            teachers[0] if len(teachers) == 1 else Ensemble(teachers), output or (lambda value: value), precision
        )
        with torch.no_grad():
            teachers[0].weight.mul_(scale)
        outputs.open_cache("memory", 0)
        return outputs.cache.identity

    def doubled(value):
        return 2.0 * value

    def tripled(value):
        return 3.0 * value

    def item(number):
        return lambda value: value[number:]

    same = identity()
    assert identity() == same
    assert identity(output=item(0)) == identity(output=item(0))
    others = [
        identity(scale=2.0),
        identity(precision="bf16"),
        identity(members=(0, 1)),
        identity(output=doubled),
        identity(output=tripled),
        identity(output=functools.partial(logits_of, argument="teacher_output")),
        identity(output=lambda value: value.mean(0)),
        identity(output=lambda value: value.sum(0)),
        identity(output=item(0)),
        identity(output=item(1)),
        identity(output=functools.partial(torch.add, other=1.0)),
        identity(output=functools.partial(torch.add, other=2.0)),
    ]
    assert len({same, *others}) == 13


def test_cached_outputs_of_another_teacher_are_not_restored_from_a_checkpoint():
    def outputs(seed):
        torch.manual_seed(seed)
        found = TeacherOutputs(nn.Linear(2, 3), lambda value: value, "32")
        found.open_cache("memory", 0)
        return found

    one, x = outputs(0), torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    one.logits((x,), {})
    same, other = outputs(0), outputs(5)
    for again in (same, other):
        again.load_state_dict(one.state_dict())
    assert (len(same.cache), len(other.cache)) == (4, 0)
    torch.testing.assert_close(other.logits((x,), {}), other.teacher(x), atol=1e-3, rtol=1e-3)
