"""GPU energy from NVIDIA's own counter."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from types import ModuleType

from typing_extensions import override

from lightning_green.energy.counter import Added, EnergyCounter, PowerIntegral
from lightning_green.energy.gpus import Gpu, job_gpus, open_nvml, say_nvml
from lightning_green.energy.meter import Component, Quality
from lightning_green.energy.sampled import SampledMeter

_MOST_WATTS = 3000.0  # more than any card draws, where a card does not tell its limit


class NvmlMeter(SampledMeter):
    """Energy of the job's NVIDIA GPUs from the card's total-energy counter, in mJ since the driver was loaded.

    Cards before Volta have no counter; their power is sampled and integrated by the trapezium rule. A MIG instance has
    neither: it is charged its share of the card's energy by compute slices, and that is ``"modelled"``.

    Args:
        gpu_ids: Cards to count, as NVML indices, UUIDs or MIG names; None for those of ``CUDA_VISIBLE_DEVICES``, or
            all.
        every: Time between two samples.

    Raises:
        ValueError: If ``every`` cannot be read or is shorter than a tenth of a second.

    Example::

        EmissionsTracker(meter=NvmlMeter(), grid="typical:DE")

    """

    name = "NVML"

    def __init__(self, gpu_ids: Sequence[str | int] | None = None, every: str | timedelta = "10s") -> None:
        self.gpu_ids = None if gpu_ids is None else [str(gpu) for gpu in gpu_ids]
        super().__init__(every)

    @override
    def bind_gpus(self, gpus: Sequence[str]) -> None:
        if self.gpu_ids is None:
            self.gpu_ids = [str(gpu) for gpu in gpus]

    @override
    def _reset(self) -> None:
        super()._reset()
        self._nvml: ModuleType | None = None
        self._cards: list[_Card] = []

    @override
    def _open(self) -> dict[Component, Quality]:
        self._nvml, why = open_nvml()
        if self._nvml is None:
            self.problem = f"The GPU's energy cannot be read ({why})."
            return {"gpu": "unavailable"}
        try:
            gpus, notes = job_gpus(self._nvml, self.gpu_ids)
        except self._nvml.NVMLError as error:
            gpus, notes = [], [say_nvml(error)]
        if notes:
            self.problem = f"Of the GPUs, {'; '.join(notes)}."
        for gpu in gpus:
            try:
                self._cards.append(_Card(self._nvml, gpu))
            except self._nvml.NVMLError as error:  # noqa: PERF203  (seldom, and few)
                self.problem = f"The energy of GPU {gpu.index} cannot be read ({say_nvml(error)})."
        if not self._cards:
            self._shut()
            return {"gpu": "unavailable"}
        whole = len(self._cards) == len(gpus) and all(gpu.share == 1.0 for gpu in gpus)
        return {"gpu": "measured" if whole else "modelled"}

    @override
    def _advance(self) -> dict[Component, float]:
        assert self._nvml is not None
        joules = 0.0
        for card in self._cards:
            try:
                added = card.advance()
            except self._nvml.NVMLError as error:
                self.problem = (
                    f"The energy of GPU {card.gpu.index} cannot be read for now ({say_nvml(error)}); it stays where it "
                    "is until it can be."
                )
                continue
            if added.guessed:
                self._guessed("gpu")
                self.problem = (
                    f"The energy counter of GPU {card.gpu.index} was reset or silent; the gap is filled with the power "
                    "before it."
                )
            joules += added.joules * card.gpu.share
        return {"gpu": joules}

    @override
    def _shut(self) -> None:
        if self._nvml is not None:
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError as error:
                self.problem = f"NVML could not be let go of ({say_nvml(error)})."
            self._nvml, self._cards = None, []

    @override
    def describe(self) -> str:
        count = len(self._cards)
        cards = f"{count} GPU{'s' if count != 1 else ''}, " if count else ""
        return f"NVML ({cards}{self._quality.get('gpu', 'not started')})"


class _Card:
    """One card and what has been read from it so far."""

    def __init__(self, nvml: ModuleType, gpu: Gpu) -> None:
        self.gpu, self._nvml = gpu, nvml
        try:
            # 20 % above the highest limit: short peaks pass it
            most = nvml.nvmlDeviceGetPowerManagementLimitConstraints(gpu.handle)[1] / 1000.0 * 1.2
        except nvml.NVMLError:
            most = _MOST_WATTS
        self._counter, self._integral = EnergyCounter(most), PowerIntegral(longest_gap=60.0)
        try:
            self._has_counter = True
            self.advance()
        except nvml.NVMLError_NotSupported:
            self._has_counter = False
            self.advance()

    def advance(self) -> Added:
        if self._has_counter:
            joules = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self.gpu.handle) / 1000.0
            return self._counter.add(time.monotonic(), joules)
        watts = self._nvml.nvmlDeviceGetPowerUsage(self.gpu.handle) / 1000.0
        return self._integral.add(time.monotonic(), watts)
