"""Choice of the number format in which a device trains best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

LightningName = Literal["bf16-mixed", "16-mixed", "32-true"]

NAMES: dict[str, LightningName] = {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}


@dataclass(frozen=True)
class DeviceSupport:
    """Number formats that a device supports.

    Args:
        kind: Device type as in ``torch.device.type``, for example ``"cuda"``.
        autocast: Whether PyTorch has autocast for the device type.
        bf16: Whether bfloat16 runs in hardware.
        fp16: Whether float16 runs at all.
        fp16_fast: Whether float16 runs faster than float32 (tensor cores).

    """

    kind: str
    autocast: bool
    bf16: bool
    fp16: bool
    fp16_fast: bool


class Choice(NamedTuple):
    """A chosen precision.

    Attributes:
        name: Lightning's name of the precision.
        reason: Reason for the choice, as the end of a sentence.
        emulated: Whether the device only emulates the format.

    """

    name: LightningName
    reason: str
    emulated: bool = False


def device_support(device: torch.device) -> DeviceSupport:
    """Return the number formats that ``device`` supports."""
    autocast = bool(torch.amp.is_autocast_available(device.type))
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        with torch.cuda.device(device):
            native = bool(torch.cuda.is_bf16_supported(including_emulation=False))
        return DeviceSupport("cuda", autocast, native, capability >= (5, 3), capability >= (7, 0))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
        return DeviceSupport("cpu", autocast, native, True, False)
    return DeviceSupport(device.type, autocast, False, device.type == "mps", False)


def choose_precision(requested: str, support: DeviceSupport) -> Choice:
    """Return the precision to train in.

    Args:
        requested: ``"auto"``, ``"bf16"``, ``"fp16"`` or ``"fp32"``.
        support: Formats that the device supports.

    Raises:
        ValueError: If the device does not support the requested format.

    Examples:
        >>> choose_precision("auto", DeviceSupport("cuda", True, True, True, True)).name
        'bf16-mixed'

    """
    if requested == "fp32":
        return Choice("32-true", "fp32 was requested")
    if requested in ("bf16", "fp16"):
        if not support.autocast or (requested == "fp16" and not support.fp16):
            raise ValueError(
                f"`precision={requested!r}` does not run on this device ({support.kind}). Use precision='fp32', or "
                "'auto' for the best format of the device."
            )
        if requested == "bf16" and not support.bf16:
            return Choice(
                NAMES[requested], "bf16 was requested; the device emulates it and fp32 may be faster", emulated=True
            )
        return Choice(NAMES[requested], f"{requested} was requested")
    if support.autocast and support.bf16:
        return Choice("bf16-mixed", f"the {support.kind} device has bfloat16 in hardware")
    if support.autocast and support.fp16_fast:
        return Choice("16-mixed", f"the {support.kind} device has no bfloat16 in hardware, but fast float16")
    return Choice("32-true", f"the {support.kind} device has neither bfloat16 nor fast float16 in hardware")
