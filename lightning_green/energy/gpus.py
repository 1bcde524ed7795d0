"""Which NVIDIA devices belong to the job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Gpu:
    """A card of this node that the job uses, whole or in part.

    Args:
        index: Its index in NVML, which zeusd uses too.
        uuid: Its UUID.
        model: Its name, such as ``"NVIDIA H100 80GB HBM3"``.
        share: Fraction of its compute slices that the job has; below 1 only under MIG.
        handle: NVML's handle.

    """

    index: int
    uuid: str
    model: str
    share: float = 1.0
    handle: Any = field(default=None, compare=False, repr=False)


def open_nvml() -> tuple[ModuleType | None, str | None]:
    """Return the initialised NVML, or None and why there is none. Each success is to be shut down once."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return None, say_nvml(error)
    return pynvml, None


def say_nvml(error: BaseException) -> str:
    """Return an NVML error as part of a sentence."""
    return f"NVML says: {str(error).rstrip('.') or type(error).__name__}"


def job_gpus(nvml: ModuleType, asked: Sequence[str] | None = None) -> tuple[list[Gpu], list[str]]:
    """Return the cards that the job uses, as CUDA picks them, and notes on names that fit none.

    ``CUDA_VISIBLE_DEVICES`` holds indices, UUIDs or the beginnings of UUIDs, and MIG instances (``MIG-<uuid>`` or
    ``MIG-GPU-<uuid>/<gpu instance>/<compute instance>``); as in CUDA, what follows a name that fits nothing is ignored.
    Of a card in MIG mode that is named as a whole, CUDA uses the first instance.

    Args:
        nvml: The initialised NVML.
        asked: Names as above; None for ``CUDA_VISIBLE_DEVICES``, and every card of the node where it is not set.

    """
    names = visible_names() if asked is None else [str(name) for name in asked]
    cards = _cards(nvml)
    notes: list[str] = []
    shares: dict[int, float] = {}
    for name in [str(card.index) for card in cards] if names is None else names:
        found = _find(nvml, cards, name)
        if found is None:
            notes.append(f"no GPU of this node is called {name!r}; it and what follows it in {VISIBLE} is not counted")
            break
        index, share = found
        shares[index] = min(1.0, shares.get(index, 0.0) + share)
        if name.isdigit() and len({card.model for card in cards}) > 1 and _fastest_first():
            notes.append(
                "the GPUs differ and CUDA_DEVICE_ORDER is not PCI_BUS_ID, so an index may mean another card to CUDA; "
                f"name them by UUID in {VISIBLE}"
            )
    by_index = {card.index: card for card in cards}
    chosen = [
        Gpu(index, by_index[index].uuid, by_index[index].model, share, by_index[index].handle)
        for index, share in shares.items()
    ]
    return chosen, list(dict.fromkeys(notes))


def visible_names() -> list[str] | None:
    """Return the names in ``CUDA_VISIBLE_DEVICES``, None where it is not set."""
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
        except nvml.NVMLError:  # a card that fell off the bus, or one that this container may not see
            continue
        cards.append(Gpu(index, uuid, model, handle=handle))
    return cards


def _find(nvml: ModuleType, cards: list[Gpu], name: str) -> tuple[int, float] | None:
    """Return the card that a name means and the share of it."""
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
    """Return UUID, ``<gpu instance>/<compute instance>`` and share of every MIG instance of a card."""
    try:
        if nvml.nvmlDeviceGetMigMode(card.handle)[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return []
        slots = nvml.nvmlDeviceGetMaxMigDeviceCount(card.handle)
    except nvml.NVMLError:  # a card that knows no MIG
        return []
    found = []
    for slot in range(slots):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(card.handle, slot)
            place = f"{nvml.nvmlDeviceGetGpuInstanceId(handle)}/{nvml.nvmlDeviceGetComputeInstanceId(handle)}"
            attributes = nvml.nvmlDeviceGetAttributes(handle)
            # `slots` is the number of compute slices of the card: an instance of one slice is the smallest there is
            share = min(1.0, attributes.gpuInstanceSliceCount / slots)
            found.append((nvml.nvmlDeviceGetUUID(handle), place, share))
        except nvml.NVMLError:  # noqa: PERF203  (a slot without an instance)
            continue
    return found
