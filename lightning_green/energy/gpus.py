"""The NVIDIA GPUs of the job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Gpu:
    """A GPU of this node that the job uses, as a whole or in part.

    Args:
        index: NVML index, which zeusd uses too.
        uuid: UUID.
        model: Name of the model, such as ``"NVIDIA H100 80GB HBM3"``.
        share: Fraction of the compute slices that belong to the job; below 1 under MIG only.
        handle: NVML handle.

    """

    index: int
    uuid: str
    model: str
    share: float = 1.0
    handle: Any = field(default=None, compare=False, repr=False)


def open_nvml() -> tuple[ModuleType | None, str | None]:
    """Return the initialized NVML module and None, or None and the reason of the failure.

    The caller calls ``nvmlShutdown`` once after each success.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return None, describe_nvml_error(error)
    return pynvml, None


def describe_nvml_error(error: BaseException) -> str:
    """Return the text of an NVML error, for use in a message."""
    return f"NVML error: {str(error).rstrip('.') or type(error).__name__}"


def job_gpus(nvml: ModuleType, requested: Sequence[str] | None = None) -> tuple[list[Gpu], list[str]]:
    """Return the GPUs of the job, by the rules of CUDA, and notes about names without a GPU.

    ``CUDA_VISIBLE_DEVICES`` contains indices, UUIDs or prefixes of UUIDs, and MIG instances (``MIG-<uuid>`` or
    ``MIG-GPU-<uuid>/<gpu instance>/<compute instance>``). As in CUDA, names after the first unknown one are ignored,
    and a GPU in MIG mode that is named as a whole means its first instance.

    Args:
        nvml: The initialized NVML module.
        requested: Names as above; None for ``CUDA_VISIBLE_DEVICES``, or all GPUs of the node if it is not set.

    Returns:
        The GPUs, and one note per problem.

    """
    names = visible_names() if requested is None else [str(name) for name in requested]
    cards = _cards(nvml)
    notes: list[str] = []
    shares: dict[int, float] = {}
    for name in [str(card.index) for card in cards] if names is None else names:
        found = _find(nvml, cards, name)
        if found is None:
            notes.append(
                f"no GPU of this node has the name {name!r}; this name and all later ones in {VISIBLE} are ignored"
            )
            break
        index, share = found
        shares[index] = min(1.0, shares.get(index, 0.0) + share)
        if name.isdigit() and len({card.model for card in cards}) > 1 and _fastest_first():
            notes.append(
                "the GPUs differ and CUDA_DEVICE_ORDER is not PCI_BUS_ID, so CUDA may use another GPU for an index; "
                f"name them by UUID in {VISIBLE}"
            )
    by_index = {card.index: card for card in cards}
    chosen = [
        Gpu(index, by_index[index].uuid, by_index[index].model, share, by_index[index].handle)
        for index, share in shares.items()
    ]
    return chosen, list(dict.fromkeys(notes))


def visible_names() -> list[str] | None:
    """Return the names in ``CUDA_VISIBLE_DEVICES``, or None if it is not set."""
    text = os.environ.get(VISIBLE)
    if text is None:
        return None
    names = []
    for name in text.split(","):
        if name.strip() in ("", "-1"):
            break
        names.append(name.strip())
    return names


def _fastest_first() -> bool:
    return os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID"


def _cards(nvml: ModuleType) -> list[Gpu]:
    cards = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            model, uuid = nvml.nvmlDeviceGetName(handle), nvml.nvmlDeviceGetUUID(handle)
        except nvml.NVMLError:  # a GPU that has fallen off the bus, or is not accessible in this container
            continue
        cards.append(Gpu(index, uuid, model, handle=handle))
    return cards


def _find(nvml: ModuleType, cards: list[Gpu], name: str) -> tuple[int, float] | None:
    """Return the index and the share of the GPU with a name."""
    if name.isascii() and name.isdigit():
        card = next((card for card in cards if card.index == int(name)), None)
        return None if card is None else _whole_or_first_instance(nvml, card)
    if name.startswith("GPU-"):
        fitting = [card for card in cards if card.uuid.startswith(name)]
        return _whole_or_first_instance(nvml, fitting[0]) if len(fitting) == 1 else None
    if name.startswith("MIG-"):
        return _find_instance(nvml, cards, name)
    return None


def _whole_or_first_instance(nvml: ModuleType, card: Gpu) -> tuple[int, float]:
    instances = _instances(nvml, card)
    return (card.index, instances[0][2]) if instances else (card.index, 1.0)


def _find_instance(nvml: ModuleType, cards: list[Gpu], name: str) -> tuple[int, float] | None:
    for card in cards:
        for uuid, place, share in _instances(nvml, card):
            if uuid.startswith(name) or name == f"MIG-{card.uuid}/{place}":
                return card.index, share
    return None


def _instances(nvml: ModuleType, card: Gpu) -> list[tuple[str, str, float]]:
    """Return UUID, ``<gpu instance>/<compute instance>`` and share of every MIG instance of a GPU."""
    try:
        if nvml.nvmlDeviceGetMigMode(card.handle)[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return []
        slots = nvml.nvmlDeviceGetMaxMigDeviceCount(card.handle)
    except nvml.NVMLError:  # a GPU without MIG
        return []
    found = []
    for slot in range(slots):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(card.handle, slot)
            place = f"{nvml.nvmlDeviceGetGpuInstanceId(handle)}/{nvml.nvmlDeviceGetComputeInstanceId(handle)}"
            attributes = nvml.nvmlDeviceGetAttributes(handle)
            # `slots` is the number of compute slices, because the smallest instance has one slice.
            share = min(1.0, attributes.gpuInstanceSliceCount / slots)
            found.append((nvml.nvmlDeviceGetUUID(handle), place, share))
        except nvml.NVMLError:  # noqa: PERF203  (a slot without an instance)
            continue
    return found
