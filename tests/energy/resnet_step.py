"""A training step like ResNet-50's, and what a card draws for it: python -m tests.energy.resnet_step [--levels].

Prints a JSON object: the card's power without a CUDA context, with one, and in training; with ``--levels``, seconds and
joules of a step at each level that this machine lets us set, which changes the card's settings while it runs.
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
    """Return the network of He et al. (2016), with the stride in the 3 x 3 convolution."""
    layers, inside = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for width, blocks, stride in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
        for block in range(blocks):
            layers.append(Bottleneck(inside, width, stride if block == 0 else 1))
            inside = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, classes))


class Steps:
    """Training steps on one batch that stays on the device."""

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
        """Train for some seconds; return how many steps that were."""
        torch.cuda.synchronize()
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(5):
                self()
            torch.cuda.synchronize()
            count += 5
        return count


def job_card():
    """Return NVML's handle of the job's first card."""
    from lightning_green.energy.gpus import job_gpus

    pynvml.nvmlInit()
    gpus, notes = job_gpus(pynvml)
    assert gpus, notes
    return gpus[0].handle


def joules(card):
    return pynvml.nvmlDeviceGetTotalEnergyConsumption(card) / 1000.0


def mean_watts(card, during):
    """Return the mean power by the card's counter while ``during`` runs, and what that returned."""
    began, before = time.monotonic(), joules(card)
    result = during()
    return (joules(card) - before) / (time.monotonic() - began), result


def idle_powers(seconds=5.0):
    """Return the power in W without a CUDA context, with one that holds 8 GiB, and in training.

    To be called in a process that has not used CUDA yet.
    """
    assert not torch.cuda.is_initialized()
    card = job_card()
    found = {"card": pynvml.nvmlDeviceGetName(card), "limit_w": pynvml.nvmlDeviceGetPowerManagementLimit(card) / 1000.0}
    time.sleep(seconds)  # what was there before cools down
    found["without_context_w"], _ = mean_watts(card, lambda: time.sleep(seconds))
    torch.cuda.init()
    held = torch.zeros(2**31, dtype=torch.float32, device="cuda")
    torch.cuda.synchronize()
    time.sleep(seconds)
    found["with_context_w"], _ = mean_watts(card, lambda: time.sleep(seconds))
    del held
    steps = Steps("cuda")
    steps.run(seconds)
    found["training_w"], _ = mean_watts(card, lambda: steps.run(seconds))
    return found


def curve(actuator, seconds=10.0):
    """Return name, seconds and joules of a step at each level of an actuator; what was found is restored."""
    card, steps, points = job_card(), Steps("cuda"), []
    steps.run(seconds)
    try:
        for level in actuator.levels():
            if not actuator.set(level):
                continue
            steps.run(seconds / 3)
            began = time.monotonic()
            watts, count = mean_watts(card, lambda: steps.run(seconds))
            per_step = (time.monotonic() - began) / count
            points.append({"level": level.name, "watts": watts, "step_s": per_step, "step_j": watts * per_step})
    finally:
        actuator.restore()
    return points


def settable():
    """Return the actuator that this machine lets us use: a power limit, else clocks; None and why."""
    from lightning_green.throttle.actuators.nvml_locked_clocks import NvmlLockedClocks
    from lightning_green.throttle.actuators.nvml_power_limit import NvmlPowerLimit

    for actuator in (NvmlPowerLimit(), NvmlLockedClocks()):
        if len(actuator.levels()) > 1:
            return actuator, None
    return None, actuator.problem


if __name__ == "__main__":
    result = idle_powers()
    if "--levels" in sys.argv:
        actuator, why = settable()
        result["levels"] = why if actuator is None else {"set_by": actuator.kind, "points": curve(actuator)}
    print(json.dumps(result))
