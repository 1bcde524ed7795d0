"""The most accurate available meter for each component."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from typing_extensions import override

from lightning_green.energy.codecarbon import CodeCarbonMeter
from lightning_green.energy.meter import Component, Energy, Meter
from lightning_green.energy.nvml import NvmlMeter
from lightning_green.energy.rapl import POWERCAP, RaplMeter
from lightning_green.utilities.durations import parse_duration


class AutoMeter(Meter):
    """Measure each component with the most accurate available meter. ``meter="auto"`` creates this meter.

    | component | first available source |
    | --- | --- |
    | `gpu` | energy counter of NVIDIA GPUs; AMD and Apple GPUs through codecarbon |
    | `cpu` | RAPL, if its files are readable; the load model of codecarbon |
    | `ram` | RAPL, if the CPU counts the energy of the memory; the model of codecarbon |

    ``describe`` reports the sources, their quality, and how to enable a better one.

    Args:
        every: Time between two samples, at least 0.1 s.
        gpu_ids: GPUs to measure; see ``NvmlMeter``.
        powercap: Directory of the RAPL zones.

    Raises:
        ValueError: If ``every`` cannot be parsed or is shorter than 0.1 s.

    Examples:
        ```python
        EmissionsTracker(meter=AutoMeter(every="5s"), grid="typical:DE")
        ```

    """

    name = "auto"

    def __init__(
        self,
        every: str | timedelta = "10s",
        gpu_ids: Sequence[str | int] | None = None,
        powercap: str | Path = POWERCAP,
    ) -> None:
        self.every = parse_duration(every, "every")
        self.gpu_ids = None if gpu_ids is None else [str(gpu) for gpu in gpu_ids]
        self.powercap = Path(powercap)
        NvmlMeter(self.gpu_ids, self.every)  # validates the arguments
        self._reset()

    def _reset(self) -> None:
        self._sources: dict[Component, Meter] = {}
        self._remedy: str | None = None
        self._closed = False

    @override
    def start(self) -> None:
        if self._sources or self._closed:
            return
        nvml, rapl = NvmlMeter(self.gpu_ids, self.every), RaplMeter(self.every, self.powercap)
        for sensor in (nvml, rapl):
            sensor.start()
            working = [name for name, energy in sensor.read().items() if energy.quality != "unavailable"]
            self._sources.update(dict.fromkeys(working, sensor))
            if not working:
                sensor.close()
        self._remedy = rapl.remedy
        if {"gpu", "cpu", "ram"} <= set(self._sources):
            return
        # An empty list, because the GPUs would be counted twice otherwise.
        rest = CodeCarbonMeter(self.every, gpu_ids=[] if "gpu" in self._sources else self.gpu_ids)
        rest.start()
        for name, energy in rest.read().items():
            if name not in self._sources and (energy.quality != "unavailable" or name != "gpu"):
                self._sources[name] = rest

    @property
    def problem(self) -> str | None:  # type: ignore[override]
        """Description of the last failure of a source in use, or None."""
        found = [source.problem for source in self._meters() if source.problem]
        return " ".join(found) or None

    @override
    def read(self) -> dict[Component, Energy]:
        readings = {id(source): source.read() for source in self._meters()}
        return {name: readings[id(source)][name] for name, source in self._sources.items()}

    @override
    def sample(self) -> None:
        for source in self._meters():
            source.sample()

    @override
    def rest(self) -> None:
        for source in self._meters():
            source.rest()

    @override
    def wake(self) -> None:
        for source in self._meters():
            source.wake()

    @override
    def close(self) -> None:
        self._closed = True
        for source in self._meters():
            source.close()

    @override
    def bind_gpus(self, gpus: Sequence[str]) -> None:
        if self.gpu_ids is None:
            self.gpu_ids = [str(gpu) for gpu in gpus]

    @override
    def describe(self) -> str:
        values = self.read()
        parts = [f"{name} {values[name].quality} ({self._sources[name].name})" for name in sorted(values)]
        better = f"; for a measured CPU: {self._remedy}" if self._remedy else ""
        return f"auto: {', '.join(parts) or 'not started'}{better}"

    def _meters(self) -> list[Meter]:
        return list({id(source): source for source in self._sources.values()}.values())

    def __getstate__(self) -> dict[str, Any]:
        # Sensors belong to a process, so a copy starts from zero.
        return {"every": self.every, "gpu_ids": self.gpu_ids, "powercap": self.powercap}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()
