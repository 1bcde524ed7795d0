"""Energy from codecarbon, which is used as a meter only."""

from __future__ import annotations

import importlib
import logging
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from typing_extensions import override

from lightning_green.energy.cpu_share import EnergyShare, Share, check_share
from lightning_green.energy.gpus import visible_names
from lightning_green.energy.isolated_codecarbon import forget_slurm, isolated, machine_options
from lightning_green.energy.meter import Component, Quality
from lightning_green.energy.nvml import unreadable_gpus
from lightning_green.energy.sampled import SampledMeter
from lightning_green.utilities.units import JOULES_PER_KWH

_NEVER = 1e8  # seconds; longer than any run, and within the range of threading.Timer
# What codecarbon imports when it starts; pandas alone takes two seconds.
_LIBRARIES = ("codecarbon", "codecarbon.core.resource_tracker", "codecarbon.core.emissions", "cpuinfo", "pandas")
# Modes of codecarbon's CPU that read a sensor.
_MEASURING_CPUS = ("intel_rapl", "intel_power_gadget", "windows_emi")


class CodeCarbonMeter(SampledMeter):
    """Measure the CPU, GPU and RAM energy of this node with codecarbon's offline tracker.

    GPUs are measured by their own counter (NVML, AMD SMI). The CPU is measured by RAPL if its files are readable, and
    modeled from its load otherwise. The RAM is modeled. Each value has its quality. The emissions, location look-ups,
    files, signal handlers and log messages of codecarbon are disabled. Options in codecarbon's configuration that
    describe the machine (``force_cpu_power``, ``force_ram_power``, ``rapl_include_dram``) apply, and no others.
    ``scontrol`` is not called. A GPU that codecarbon cannot measure is ``"unavailable"``: a MIG instance, a virtual GPU
    and a GPU without a counter.

    Values are those of the last sample: at most ``every`` old, and current after ``sample`` or ``close``. If
    codecarbon cannot start, all components are ``"unavailable"`` and ``problem`` contains the reason.

    Args:
        every: Time between two samples, at least 0.1 s.
        gpu_ids: GPUs to measure, as NVML indices or UUIDs; None for ``CUDA_VISIBLE_DEVICES``, or all GPUs.
        share: ``"job"`` for the job's share of the energy of CPU and RAM, ``"node"`` for all of it; see ``RaplMeter``.

    Raises:
        ValueError: If ``every`` cannot be parsed or is shorter than 0.1 s, or ``share`` is unknown.

    Examples:
        ```python
        EmissionsTracker(meter=CodeCarbonMeter(every="5s"), grid="typical:DE")
        ```

    """

    name = "codecarbon"
    claims_node = True
    """Whether a second run that counts all energy of the machine is detected."""

    def __init__(
        self, every: str | timedelta = "10s", gpu_ids: list[int] | list[str] | None = None, share: Share = "job"
    ) -> None:
        self.gpu_ids = None if gpu_ids is None else [str(gpu) for gpu in gpu_ids]
        self.share = check_share(share)
        super().__init__(every)

    @override
    def import_libraries(self) -> None:
        for name in _LIBRARIES:
            importlib.import_module(name)

    @override
    def _reset(self) -> None:
        super()._reset()
        self._tracker: Any = None
        self._total: Any = None  # last totals that codecarbon passed to the handler
        self._taken: dict[Component, float] = {}
        self._split: EnergyShare | None = None

    @override
    def bind_gpus(self, gpus: Sequence[str]) -> None:
        if self.gpu_ids is None:
            self.gpu_ids = [str(gpu) for gpu in gpus]

    @override
    def _open_sensor(self) -> dict[Component, Quality]:
        self._split = EnergyShare(self.share, claims_node=self.claims_node)
        self._split.start()
        options, ignored = machine_options()
        reason = unreadable_gpus(self.gpu_ids)
        with isolated(options):
            self._tracker = self._build_tracker([] if reason else self.gpu_ids)
            self._tracker.start()  # never raises: a failure shows in the first sample
        forget_slurm(getattr(self._tracker, "_hardware", ()))
        found = _qualities(self._tracker)
        if reason:
            found["gpu"] = "unavailable"
        self._quality = {name: self._split.quality(name, quality) for name, quality in found.items()}
        self._read_sensor()
        if self._taken:
            self.problem = "\n".join(filter(None, (reason, ignored, self._split.problem))) or None
            return self._quality
        self._split.close()
        self._tracker = None
        self.problem = (
            "codecarbon could not start, so no energy is counted. Its logger reports the cause at level DEBUG."
        )
        return dict.fromkeys(("cpu", "gpu", "ram"), "unavailable")

    @override
    def _read_sensor(self) -> dict[Component, float]:
        self._total = None
        self._tracker.flush()
        if self._total is None:
            if self._taken:
                self.problem = "codecarbon could not take a sample. Its energy keeps the last value."
            return {}
        total, before = self._total, self._taken
        kwh: dict[Component, float] = {"cpu": total.cpu_energy, "gpu": total.gpu_energy, "ram": total.ram_energy}
        self._taken = {name: max(before.get(name, 0.0), kwh[name] * JOULES_PER_KWH) for name in self._quality}
        assert self._split is not None
        return self._split.of({name: joules - before.get(name, 0.0) for name, joules in self._taken.items()})

    @override
    def label(self, component: Component) -> str:
        shared = self.share == "job" and component in ("cpu", "ram")
        return f"{self.name}, share of the job" if shared else self.name

    @override
    def rest(self) -> None:
        super().rest()
        for scheduler in self._schedulers():
            scheduler.stop()
            scheduler._timer.join(timeout=1.0)

    @override
    def wake(self) -> None:
        for scheduler in self._schedulers():
            scheduler.start()
        super().wake()

    def _schedulers(self) -> list[Any]:
        """Return the timers of codecarbon; one of them samples the load of the CPU."""
        found = [getattr(self._tracker, name, None) for name in ("_scheduler", "_scheduler_monitor_power")]
        return [scheduler for scheduler in found if scheduler is not None]

    @override
    def _close_sensor(self) -> None:
        self._tracker.stop()
        self._tracker = None
        if self._split is not None:
            self._split.close()

    def _build_tracker(self, gpu_ids: list[str] | None) -> Any:
        # codecarbon logs at level INFO before it reads its own log_level.
        logger = logging.getLogger("codecarbon")
        from codecarbon import OfflineEmissionsTracker
        from codecarbon.output_methods.base_output import BaseOutput

        logger.setLevel(logging.CRITICAL)
        meter = self

        class Handler(BaseOutput):  # type: ignore[misc]
            """Keeps the totals that codecarbon passes on flush and stop."""

            def out(self, total: Any, delta: Any) -> None:
                meter._total = total

        return OfflineEmissionsTracker(
            country_iso_code="USA",  # required, but not used: emissions are computed in this package
            measure_power_secs=_NEVER,  # its timer may overlap with itself; the sampler calls flush instead
            api_call_interval=-1,
            output_methods=[],
            output_handlers=[Handler()],
            emissions_endpoint=None,
            electricitymaps_api_token=None,
            force_carbon_intensity_g_co2e_kwh=0.0,  # no look-up of an intensity
            allow_multiple_runs=True,  # False installs signal handlers that end the process
            tracking_mode="machine",
            gpu_ids=_gpus_to_count(gpu_ids),
            output_dir=tempfile.gettempdir(),  # which codecarbon checks and does not use
            pue=1.0,
            wue=0.0,
            log_level="critical",
        )


def _gpus_to_count(gpu_ids: list[str] | None) -> list[str] | None:
    """Return ``gpu_ids`` for codecarbon, which takes an empty list for all GPUs: none is an ID that does not exist."""
    if gpu_ids is None:
        gpu_ids = [] if visible_names() == [] else None
    return ["no-gpu-of-this-job"] if gpu_ids == [] else gpu_ids


def _qualities(tracker: Any) -> dict[Component, Quality]:
    """Return the quality of each component from the hardware that codecarbon found."""
    found: dict[Component, Quality] = {}
    for hardware in getattr(tracker, "_hardware", ()):
        kind = type(hardware).__name__
        if kind == "GPU":
            found["gpu"] = "measured" if hardware._get_gpu_ids() else "unavailable"
        elif kind == "RAM":
            found["ram"] = "modelled"
        elif kind == "CPU":
            found["cpu"] = "measured" if getattr(hardware, "_mode", "") in _MEASURING_CPUS else "modelled"
        elif kind in ("AppleSiliconChip", "Raspberry"):
            part: Component = {"GPU": "gpu", "RAM": "ram"}.get(hardware.chip_part, "cpu")  # type: ignore[assignment]
            found[part] = "measured"
    return found
