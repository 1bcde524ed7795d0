import copy

import torch
from torch import nn

from lightning_green.compression.distillation.forward_recorder import ForwardRecorder


def test_recorder_has_inputs_output_and_features_of_the_last_call():
    student = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    teacher = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    recorder = ForwardRecorder()
    recorder.attach(student, teacher, {"1": "0"})
    x = torch.randn(6, 3)
    copy.deepcopy(student)(x)
    assert recorder.arguments is None
    output = student(input=x)
    with torch.no_grad():
        teacher(x)
        student(x + 1)  # for a metric
    assert recorder.arguments == ((), {"input": x})
    assert recorder.output is output
    assert torch.equal(recorder.student["1"], student[:2](x))
    assert torch.equal(recorder.teacher["1"], teacher[:1](x))
    recorder.clear()
    assert recorder.arguments is None
    recorder.close()
    student(x)
    assert recorder.arguments is None
    assert recorder.student == recorder.teacher == {}
