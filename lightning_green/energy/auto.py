"""The most accurate available meter for each component."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from typing_extensions import override

from lightning_green.energy.codecarbon import CodeCarbonMeter
from lightning_green.energy.cpu_share import Share, check_share
from lightning_green.energy.meter import Component, Energy, Meter
from lightning_green.energy.nvml import NvmlMeter
from lightning_green.energy.rapl import POWERCAP, RaplMeter
from lightning_green.energy.sampled import SampledMeter
from lightning_green.utilities.durations import parse_duration


class AutoMeter(Meter):
    """Measure each component with the most accurate available meter. ``meter="auto"`` creates this meter.

    | component | first available source |
    | --- | --- |
    | `gpu` | energy counter of NVIDIA GPUs; AMD and Apple GPUs through codecarbon |
    | `cpu` | RAPL, if its files are readable; the load model of codecarbon |
    | `ram` | RAPL, if the CPU counts the energy of the memory; the model of codecarbon |

    ``describe`` reports the sources, their quality, and how to enable a better one. ``unused`` contains the reasons why
    a sensor is not used.

    Args:
        every: Time between two samples, at least 0.1 s.
        gpu_ids: GPUs to measure; see ``NvmlMeter``.
        powercap: Directory of the RAPL zones.
        share: ``"job"`` for the job's share of the energy of CPU and RAM, ``"node"`` for all of it; see ``RaplMeter``.

    Raises:
        ValueError: If ``every`` cannot be parsed or is shorter than 0.1 s, or ``share`` is unknown.

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
        share: Share = "job",
    ) -> None:
        self.every = parse_duration(every, "every")
        self.gpu_ids = None if gpu_ids is None else [str(gpu) for gpu in gpu_ids]
        self.powercap, self.share = Path(powercap), check_share(share)
        NvmlMeter(self.gpu_ids, self.every)  # validates the arguments
        self._reset()

    def _reset(self) -> None:
        self._sources: dict[Component, SampledMeter] = {}
        self.remedy: str | None = None
        self.unused: list[str] = []
        self._closed = False

    @override
    def start(self) -> None:
        if self._sources or self._closed:
            return
        nvml, rapl = NvmlMeter(self.gpu_ids, self.every), RaplMeter(self.every, self.powercap, self.share)
        for sensor in (nvml, rapl):
            sensor.start()
            working = [name for name, energy in sensor.read().items() if energy.quality != "unavailable"]
            # The GPUs of the job, also if they are unavailable: codecarbon would measure 0 J, or the whole GPU.
            found: list[Component] = ["gpu"] if sensor is nvml and nvml.has_gpus else working
            self._sources.update(dict.fromkeys(found, sensor))
            if not working:
                self.unused += (sensor.problem or "").splitlines()
                sensor.close()
        self.remedy = rapl.remedy
        if {"gpu", "cpu", "ram"} <= set(self._sources):
            return
        # Each energy is counted once: an empty list for no GPU, and one lock for the whole machine.
        rest = CodeCarbonMeter(self.every, [] if "gpu" in self._sources else self.gpu_ids, self.share)
        rest.claims_node = rapl not in self._sources.values()
        rest.start()
        for name, energy in rest.read().items():
            if name not in self._sources and (energy.quality != "unavailable" or name != "gpu"):
                self._sources[name] = rest

    @override
    def import_libraries(self) -> None:
        for meter in (NvmlMeter(), CodeCarbonMeter()):
            meter.import_libraries()

    @property
    def problem(self) -> str | None:  # type: ignore[override]
        """Description of the last failure of a source in use, or None."""
        found = [source.problem for source in self._meters() if source.problem]
        return "\n".join(found) or None

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
        parts = [f"{name} {values[name].quality} ({self._sources[name].label(name)})" for name in sorted(values)]
        better = f"; to read the CPU's sensor: {self.remedy}" if self.remedy else ""
        return f"auto: {', '.join(parts) or 'not started'}{better}"

    @override
    def label(self, component: Component) -> str:
        return self._sources[component].label(component)

    def _meters(self) -> list[SampledMeter]:
        return list({id(source): source for source in self._sources.values()}.values())

    def __getstate__(self) -> dict[str, Any]:
        # Sensors belong to a process, so a copy starts from zero.
        return {name: getattr(self, name) for name in ("every", "gpu_ids", "powercap", "share")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()
