"""Energy from codecarbon, used as a meter and nothing else."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from typing_extensions import override

from lightning_green.energy.meter import Component, Quality
from lightning_green.energy.sampled import SampledMeter

_JOULES_PER_KWH = 3.6e6
_NEVER = 1e8  # seconds; longer than any run, shorter than the longest wait that a threading.Timer takes
# classes and modes of codecarbon's hardware that read a sensor
_MEASURING_CPUS = ("intel_rapl", "intel_power_gadget", "windows_emi")


class CodeCarbonMeter(SampledMeter):
    """CPU, GPU and RAM energy of this node, from codecarbon's offline tracker.

    The GPU is measured by its own counter (NVML, AMD SMI), the CPU by RAPL where its files can be read and by
    codecarbon's load model where not, the RAM by a model; each value says which. Its emissions, look-ups, files, signal
    handlers and log lines are switched off. Settings of codecarbon's own configuration that describe the machine
    (``force_cpu_power``, ``force_ram_power``, ``rapl_include_dram``) are honoured.

    Values are those of the last sample: at most ``every`` old, at once after :meth:`sample` or :meth:`close`. If
    codecarbon cannot start, every component is ``"unavailable"``, and :attr:`problem` says so.

    Args:
        every: Time between two samples.
        gpu_ids: GPUs to count, as NVML indices or UUIDs; None for those of ``CUDA_VISIBLE_DEVICES``, or all.

    Raises:
        ValueError: If ``every`` cannot be read or is shorter than a tenth of a second.

    Example::

        EmissionsTracker(meter=CodeCarbonMeter(every="5s"), grid="typical:DE")

    """

    name = "codecarbon"

    def __init__(self, every: str | timedelta = "10s", gpu_ids: list[int] | list[str] | None = None) -> None:
        self.gpu_ids = None if gpu_ids is None else [str(gpu) for gpu in gpu_ids]
        super().__init__(every)

    @override
    def _reset(self) -> None:
        super()._reset()
        self._tracker: Any = None
        self._total: Any = None  # what codecarbon last told our handler
        self._taken: dict[Component, float] = {}

    @override
    def bind_gpus(self, gpus: Sequence[str]) -> None:
        if self.gpu_ids is None:
            self.gpu_ids = [str(gpu) for gpu in gpus]

    @override
    def _open(self) -> dict[Component, Quality]:
        self._tracker = self._build_tracker()
        self._tracker.start()  # it never raises: what went wrong shows in the first sample
        self._quality = _qualities(self._tracker)
        self._advance()
        if self._taken:
            return self._quality
        self._tracker = None
        self.problem = "codecarbon could not start, so there is no energy; its own logger says why at level DEBUG."
        return dict.fromkeys(("cpu", "gpu", "ram"), "unavailable")

    @override
    def _advance(self) -> dict[Component, float]:
        self._total = None
        self._tracker.flush()
        if self._total is None:
            if self._taken:
                self.problem = "codecarbon could not take a sample; its energy stays at the last value."
            return {}
        total, before = self._total, self._taken
        kwh: dict[Component, float] = {"cpu": total.cpu_energy, "gpu": total.gpu_energy, "ram": total.ram_energy}
        self._taken = {name: max(before.get(name, 0.0), kwh[name] * _JOULES_PER_KWH) for name in self._quality}
        return {name: joules - before.get(name, 0.0) for name, joules in self._taken.items()}

    @override
    def _shut(self) -> None:
        self._tracker.stop()
        self._tracker = None

    def _build_tracker(self) -> Any:
        # codecarbon logs at INFO from its first line on, before its own log_level is read
        logger = logging.getLogger("codecarbon")
        from codecarbon import OfflineEmissionsTracker
        from codecarbon.output_methods.base_output import BaseOutput

        logger.setLevel(logging.CRITICAL)
        meter = self

        class Handler(BaseOutput):  # type: ignore[misc]
            """Keeps the totals that codecarbon hands out on flush and stop."""

            def out(self, total: Any, delta: Any) -> None:
                meter._total = total

        return OfflineEmissionsTracker(
            country_iso_code="USA",  # it wants one; nothing of ours depends on it
            measure_power_secs=_NEVER,  # its timer may overlap with itself; our sampler asks instead
            api_call_interval=-1,
            output_methods=[],
            output_handlers=[Handler()],
            emissions_endpoint=None,
            electricitymaps_api_token=None,
            force_carbon_intensity_g_co2e_kwh=0.0,  # no look-up of any intensity: emissions are computed here
            allow_multiple_runs=True,  # False installs signal handlers that end the process
            tracking_mode="machine",
            gpu_ids=_gpus_to_count(self.gpu_ids),
            pue=1.0,
            wue=0.0,
            log_level="critical",
        )


def _gpus_to_count(gpu_ids: list[str] | None) -> list[str] | None:
    """Return codecarbon's ``gpu_ids``: an empty list means every GPU to it, so none is named by an id that is none."""
    if gpu_ids is None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpu_ids = [] if visible is not None and visible.strip() in ("", "-1") else None
    return ["no-gpu-of-this-job"] if gpu_ids == [] else gpu_ids


def _qualities(tracker: Any) -> dict[Component, Quality]:
    """Return what each component's energy is worth, by the hardware that codecarbon found."""
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
