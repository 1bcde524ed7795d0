"""Which number format a device should train in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Requested = Literal["auto", "bf16", "fp16", "fp32"]
LightningName = Literal["bf16-mixed", "16-mixed", "32-true"]

NAMES: dict[str, LightningName] = {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}


@dataclass(frozen=True)
class DeviceSupport:
    """What a device can do.

    Args:
        kind: Its type as torch names it, for example ``"cuda"``.
        autocast: Whether torch has autocast for it.
        bf16: Whether bfloat16 runs in hardware.
        fp16: Whether float16 runs at all.
        fp16_fast: Whether float16 runs faster than float32 (tensor cores).

    """

    kind: str
    autocast: bool
    bf16: bool
    fp16: bool
    fp16_fast: bool


def device_support(device: torch.device) -> DeviceSupport:
    """Return what ``device`` can do, asked from torch and the device itself."""
    autocast = bool(torch.amp.is_autocast_available(device.type))
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        with torch.cuda.device(device):
            native = bool(torch.cuda.is_bf16_supported(including_emulation=False))
        return DeviceSupport("cuda", autocast, native, capability >= (5, 3), capability >= (7, 0))
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        native = bool(has.get("avx512_bf16") or has.get("amx_bf16"))
        return DeviceSupport("cpu", autocast, native, True, False)
    return DeviceSupport(device.type, autocast, False, device.type == "mps", False)


def choose_precision(requested: str, support: DeviceSupport) -> tuple[LightningName, str]:
    """Return Lightning's name of the precision to train in, and why.

    Args:
        requested: ``"auto"``, ``"bf16"``, ``"fp16"`` or ``"fp32"``.
        support: What the device can do.

    Raises:
        ValueError: If the device cannot do what was asked for.

    """
    if requested == "fp32":
        return "32-true", "fp32 was asked for"
    if requested in ("bf16", "fp16"):
        if not support.autocast or (requested == "fp16" and not support.fp16):
            raise ValueError(
                f"`precision={requested!r}` does not run on this device ({support.kind}); use precision='fp32', or "
                "'auto' to take the best that the device has."
            )
        slow = requested == "bf16" and not support.bf16
        note = ", though the hardware only emulates it and fp32 may be faster" if slow else ""
        return NAMES[requested], f"{requested} was asked for{note}"
    if support.autocast and support.bf16:
        return "bf16-mixed", f"the {support.kind} device has bfloat16 in hardware"
    if support.autocast and support.fp16_fast:
        return "16-mixed", f"the {support.kind} device has no bfloat16 in hardware, but fast float16"
    return "32-true", f"the {support.kind} device has neither bfloat16 nor fast float16 in hardware"
