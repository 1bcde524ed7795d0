"""Power and energy of a ResNet-50 training step on the GPU of the job.

    python -m tests.helpers.resnet_step [--levels]

Prints a JSON object with the power of the GPU without a CUDA context, with a context, and in training. With
``--levels``, it contains the time and the energy of a step at each level that can be set. The settings of the GPU are
changed during that measurement and restored afterwards.
"""

import json
import sys
import time

import pynvml
import torch
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, inside, width, stride):
        super().__init__()
        outside = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, outside, 1, bias=False), nn.BatchNorm2d(outside),
        )  # fmt: skip
        self.skip = nn.Identity()
        if stride > 1 or inside != outside:
            self.skip = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x):
        return torch.relu(self.body(x) + self.skip(x))


def resnet50(classes=1000):
    """Return the network of He et al. (2016) with the stride in the 3 x 3 convolution."""
    layers, inside = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for width, blocks, stride in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
        for block in range(blocks):
            layers.append(Bottleneck(inside, width, stride if block == 0 else 1))
            inside = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, classes))


class Steps:
    """Training steps on one batch on the device."""

    def __init__(self, device, batch=128, side=224):
        self.device = torch.device(device)
        self.net = resnet50().to(self.device, memory_format=torch.channels_last)
        self.images = torch.randn(batch, 3, side, side, device=self.device).to(memory_format=torch.channels_last)
        self.labels = torch.randint(1000, (batch,), device=self.device)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9)

    def __call__(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(self.net(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss

    def run(self, seconds):
        """Train for ``seconds`` and return the number of steps."""
        torch.cuda.synchronize()
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(5):
                self()
            torch.cuda.synchronize()
            count += 5
        return count


def job_gpu():
    """Return the NVML handle of the first GPU of the job."""
    from lightning_green.energy.gpus import job_gpus

    pynvml.nvmlInit()
    gpus, notes = job_gpus(pynvml)
    assert gpus, notes
    return gpus[0].handle


def joules(gpu):
    return pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000.0


def mean_watts(gpu, during):
    """Return the mean power in W while ``during`` runs, from the counter of the GPU, and the result of ``during``."""
    began, before = time.monotonic(), joules(gpu)
    result = during()
    return (joules(gpu) - before) / (time.monotonic() - began), result


def idle_powers(seconds=5.0):
    """Return the power in W without a CUDA context, with a context and 8 GiB of memory, and in training.

    Call it in a process that has not used CUDA yet.
    """
    assert not torch.cuda.is_initialized()
    gpu = job_gpu()
    found = {"gpu": pynvml.nvmlDeviceGetName(gpu), "limit_w": pynvml.nvmlDeviceGetPowerManagementLimit(gpu) / 1000.0}
    time.sleep(seconds)  # let earlier work cool down
    found["without_context_w"], _ = mean_watts(gpu, lambda: time.sleep(seconds))
    torch.cuda.init()
    allocated = torch.zeros(2**31, dtype=torch.float32, device="cuda")
    torch.cuda.synchronize()
    time.sleep(seconds)
    found["with_context_w"], _ = mean_watts(gpu, lambda: time.sleep(seconds))
    del allocated
    steps = Steps("cuda")
    steps.run(seconds)
    found["training_w"], _ = mean_watts(gpu, lambda: steps.run(seconds))
    return found


def curve(actuator, seconds=10.0):
    """Return name, seconds and joules of a step at each level of an actuator, and restore the original state."""
    gpu, steps, points = job_gpu(), Steps("cuda"), []
    steps.run(seconds)
    try:
        for level in actuator.levels():
            if not actuator.set(level):
                continue
            steps.run(seconds / 3)
            began = time.monotonic()
            watts, count = mean_watts(gpu, lambda: steps.run(seconds))
            per_step = (time.monotonic() - began) / count
            points.append({"level": level.name, "watts": watts, "step_s": per_step, "step_j": watts * per_step})
    finally:
        actuator.restore()
    return points


def settable():
    """Return an actuator that can be used (power limit or clocks) and None, or None and the reason."""
    from lightning_green.throttle.actuators.nvml_locked_clocks import NvmlLockedClocks
    from lightning_green.throttle.actuators.nvml_power_limit import NvmlPowerLimit

    for actuator in (NvmlPowerLimit(), NvmlLockedClocks()):
        if len(actuator.levels()) > 1:
            return actuator, None
    return None, actuator.problem


if __name__ == "__main__":
    result = idle_powers()
    if "--levels" in sys.argv:
        actuator, reason = settable()
        result["levels"] = reason if actuator is None else {"set_by": actuator.kind, "points": curve(actuator)}
    print(json.dumps(result))
