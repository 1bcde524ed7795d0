import pytest
import torch
from torch import nn

from lightning_green.compression.distillation.teacher_outputs import TeacherOutputs


def test_logits_are_those_of_the_module_in_evaluation_mode():
    teacher = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9))
    outputs = TeacherOutputs(teacher, lambda output: 2 * output, "32")
    outputs.prepare(torch.device("cpu"))
    x = torch.randn(5, 4)
    logits = outputs.logits((x,), {})
    assert torch.allclose(logits, 2 * teacher[0](x))
    assert not logits.requires_grad
    assert not logits.is_inference()
    assert outputs.saved_seconds() == 0.0
    assert outputs.state_dict() == {"cache": {}, "counts": {}}


def test_cache_computes_each_sample_once_and_is_restored():
    calls = []

    def teacher(x):
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


def test_unknown_precision_raises():
    with pytest.raises(ValueError, match="`precision` should be one of '32', 'bf16', '16', got '8'"):
        TeacherOutputs(nn.Linear(1, 1), lambda output: output, "8")
