"""Energy of NVIDIA GPUs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from types import ModuleType

from typing_extensions import override

from lightning_green.energy.counter import Added, EnergyCounter, ImplausibleReadingError, PowerIntegral
from lightning_green.energy.gpus import Gpu, describe_nvml_error, job_gpus, open_nvml
from lightning_green.energy.meter import Component, Quality
from lightning_green.energy.sampled import SampledMeter

_MAX_WATTS = 3000.0  # upper bound for a GPU that does not report its limit
_STILL_SECONDS = 30.0  # a GPU always draws power, and its counter is updated several times per second
_PART = "a part of a GPU has no energy counter of its own"


class NvmlMeter(SampledMeter):
    """Measure the energy of NVIDIA GPUs with their total-energy counter.

    GPUs before Volta have no counter. Their power is sampled and integrated by the trapezoidal rule. A part of a GPU, a
    MIG instance or a virtual GPU (vGPU), has no counter either, and the power of the whole GPU is not that of the job.
    Its energy is ``"unavailable"``, as is that of a counter that stands still or jumps, and ``problem`` contains the
    reason.

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
        self.has_gpus = False

    @override
    def import_libraries(self) -> None:
        import pynvml  # noqa: F401

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
        self.has_gpus = bool(gpus)
        for gpu in gpus:
            reason = _why_partial(self._nvml, gpu)
            try:
                if reason is None:
                    self._cards.append(_Card(self._nvml, gpu))
            except (self._nvml.NVMLError, ImplausibleReadingError) as error:
                reason = describe_nvml_error(error) if isinstance(error, self._nvml.NVMLError) else str(error)
            if reason is not None:
                self.problem = f"The energy of GPU {gpu.index} cannot be read ({reason})."
        if not self._cards:
            self._close_sensor()
            return {"gpu": "unavailable"}
        return {"gpu": "measured" if len(self._cards) == len(gpus) else "modelled"}

    @override
    def _read_sensor(self) -> dict[Component, float]:
        assert self._nvml is not None
        joules = 0.0
        self._failing = set()
        for card in self._cards:
            try:
                added = card.advance()
            except ImplausibleReadingError as error:
                self._failing = {"gpu"}
                self.problem = f"The energy of GPU {card.gpu.index} is unknown for now: {error}."
                continue
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
            joules += added.joules
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
        return f"NVML ({cards}{self._current('gpu') if self._quality else 'not started'})"


class _Card:
    """Readings of one GPU."""

    def __init__(self, nvml: ModuleType, gpu: Gpu) -> None:
        self.gpu, self._nvml = gpu, nvml
        try:
            # Short peaks exceed the highest limit, by less than 20 %.
            max_watts = nvml.nvmlDeviceGetPowerManagementLimitConstraints(gpu.handle)[1] / 1000.0 * 1.2
        except nvml.NVMLError:
            max_watts = _MAX_WATTS
        self._counter = EnergyCounter(max_watts, still_seconds=_STILL_SECONDS)
        self._integral = PowerIntegral(60.0, max_watts, min_watts=0.0)
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


def _why_partial(nvml: ModuleType, gpu: Gpu) -> str | None:
    """Return the reason if the job has only a part of the GPU."""
    if gpu.share < 1.0:
        return f"a MIG instance: {_PART}"
    try:
        mode = nvml.nvmlDeviceGetVirtualizationMode(gpu.handle)
        if mode == nvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU and not _has_counter(nvml, gpu):
            return f"a virtual GPU: {_PART}"
    except nvml.NVMLError:  # a driver without virtual GPUs
        pass
    return None


def _has_counter(nvml: ModuleType, gpu: Gpu) -> bool:
    try:
        nvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle)
    except nvml.NVMLError_NotSupported:
        return False
    except nvml.NVMLError:  # a failure of another kind: the meter reads it later
        return True
    return True


def unreadable_gpus(gpu_ids: Sequence[str] | None) -> str | None:
    """Return why the energy counters of the job's NVIDIA GPUs cannot be read, or None if they can.

    Args:
        gpu_ids: See ``NvmlMeter``.

    """
    nvml, _ = open_nvml()
    if nvml is None:  # no NVIDIA GPU
        return None
    try:
        for gpu in job_gpus(nvml, gpu_ids)[0]:
            reason = _why_partial(nvml, gpu)
            if reason is None and not _has_counter(nvml, gpu):
                reason = "it has no energy counter"
            if reason is not None:
                return f"The energy of GPU {gpu.index} cannot be read ({reason})."
    except nvml.NVMLError as error:
        return f"The energy of the GPUs cannot be read ({describe_nvml_error(error)})."
    finally:
        nvml.nvmlShutdown()
    return None
