"""Energy of NVIDIA GPUs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from types import ModuleType

from typing_extensions import override

from lightning_green.energy.counter import Added, EnergyCounter, PowerIntegral
from lightning_green.energy.gpus import Gpu, describe_nvml_error, job_gpus, open_nvml
from lightning_green.energy.meter import Component, Quality
from lightning_green.energy.sampled import SampledMeter

_MAX_WATTS = 3000.0  # upper bound for a GPU that does not report its limit


class NvmlMeter(SampledMeter):
    """Measure the energy of NVIDIA GPUs with their total-energy counter.

    GPUs before Volta have no counter. Their power is sampled and integrated by the trapezoidal rule. A MIG instance has
    no counter either. Its energy is a share of the GPU's energy by compute slices, with the quality ``"modelled"``.

    Args:
        gpu_ids: GPUs to measure, as NVML indices, UUIDs or MIG names; None for ``CUDA_VISIBLE_DEVICES``, or all GPUs.
        every: Time between two samples, at least 0.1 s.

    Raises:
        ValueError: If ``every`` cannot be parsed or is shorter than 0.1 s.

    Examples:
        ```python
        EmissionsTracker(meter=NvmlMeter(), grid="typical:DE")
        ```

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
    def _open_sensor(self) -> dict[Component, Quality]:
        self._nvml, reason = open_nvml()
        if self._nvml is None:
            self.problem = f"The energy of the GPUs cannot be read ({reason})."
            return {"gpu": "unavailable"}
        try:
            gpus, notes = job_gpus(self._nvml, self.gpu_ids)
        except self._nvml.NVMLError as error:
            gpus, notes = [], [describe_nvml_error(error)]
        if notes:
            self.problem = f"Not all GPUs may be measured: {'; '.join(notes)}."
        for gpu in gpus:
            try:
                self._cards.append(_Card(self._nvml, gpu))
            except self._nvml.NVMLError as error:  # noqa: PERF203  (few GPUs)
                self.problem = f"The energy of GPU {gpu.index} cannot be read ({describe_nvml_error(error)})."
        if not self._cards:
            self._close_sensor()
            return {"gpu": "unavailable"}
        whole = len(self._cards) == len(gpus) and all(gpu.share == 1.0 for gpu in gpus)
        return {"gpu": "measured" if whole else "modelled"}

    @override
    def _read_sensor(self) -> dict[Component, float]:
        assert self._nvml is not None
        joules = 0.0
        for card in self._cards:
            try:
                added = card.advance()
            except self._nvml.NVMLError as error:
                self.problem = (
                    f"The energy of GPU {card.gpu.index} cannot be read for now ({describe_nvml_error(error)}). It "
                    "keeps the last value until the next successful reading."
                )
                continue
            if added.estimated:
                self._mark_estimated("gpu")
                self.problem = (
                    f"The energy counter of GPU {card.gpu.index} was reset or could not be read. The energy of the gap "
                    "is estimated from the previous power."
                )
            joules += added.joules * card.gpu.share
        return {"gpu": joules}

    @override
    def _close_sensor(self) -> None:
        if self._nvml is not None:
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError as error:
                self.problem = f"NVML could not be shut down ({describe_nvml_error(error)})."
            self._nvml, self._cards = None, []

    @override
    def describe(self) -> str:
        count = len(self._cards)
        cards = f"{count} GPU{'s' if count != 1 else ''}, " if count else ""
        return f"NVML ({cards}{self._quality.get('gpu', 'not started')})"


class _Card:
    """Readings of one GPU."""

    def __init__(self, nvml: ModuleType, gpu: Gpu) -> None:
        self.gpu, self._nvml = gpu, nvml
        try:
            # Short peaks exceed the highest limit, by less than 20 %.
            max_watts = nvml.nvmlDeviceGetPowerManagementLimitConstraints(gpu.handle)[1] / 1000.0 * 1.2
        except nvml.NVMLError:
            max_watts = _MAX_WATTS
        self._counter, self._integral = EnergyCounter(max_watts), PowerIntegral(longest_gap=60.0)
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
