"""Power from carbontracker's components, integrated here."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import time
from datetime import timedelta
from typing import Any, cast

from typing_extensions import override

from lightning_green.energy.counter import PowerIntegral
from lightning_green.energy.meter import Component, Quality
from lightning_green.energy.sampled import SampledMeter


class CarbonTrackerMeter(SampledMeter):
    """CPU and GPU energy of this node from carbontracker's power readings (extra ``carbontracker``).

    Only carbontracker's components are used: they read power. Its tracker is not: that one looks its place up in the
    network, multiplies every energy by a PUE of 1.58, prints, and ends the process when it finds no device. Power is
    sampled every ``every`` and integrated by the trapezium rule. Its GPUs are those of ``CUDA_VISIBLE_DEVICES``, or
    all of the node's.

    Values are those of the last sample. A component whose sensor fails keeps its last value; if none works, all are
    ``"unavailable"``, and :attr:`problem` says so.

    Args:
        every: Time between two samples.
        components: ``"all"``, ``"gpu"``, ``"cpu"`` or ``"gpu,cpu"``.
        sim_cpu: Name of a simulated CPU, for tests; with ``sim_cpu_tdp`` (W) and ``sim_cpu_util`` (0 to 1).
        sim_cpu_tdp: Its power at full load in W.
        sim_cpu_util: Its load.
        sim_gpu: Name of a simulated GPU, for tests; with ``sim_gpu_watts`` (W) and ``sim_gpu_util`` (0 to 1).
        sim_gpu_watts: Its power at full load in W.
        sim_gpu_util: Its load.

    Raises:
        ModuleNotFoundError: If carbontracker is not installed.
        ValueError: If ``every`` or ``components`` cannot be read, or a simulated device lacks its power.

    Example::

        EmissionsTracker(meter=CarbonTrackerMeter(), grid="typical:DE")

    """

    name = "carbontracker"

    def __init__(
        self,
        every: str | timedelta = "10s",
        components: str = "all",
        sim_cpu: str | None = None,
        sim_cpu_tdp: float | None = None,
        sim_cpu_util: float | None = None,
        sim_gpu: str | None = None,
        sim_gpu_watts: float | None = None,
        sim_gpu_util: float | None = None,
    ) -> None:
        names = components.replace(" ", "").lower().split(",")
        if not set(names) <= {"all", "gpu", "cpu"}:
            raise ValueError(f'`components` should be "all", "gpu", "cpu" or "gpu,cpu", got {components!r}.')
        if sim_cpu is not None and sim_cpu_tdp is None:
            raise ValueError("`sim_cpu_tdp` should be the simulated CPU's power in W, got None.")
        if sim_gpu is not None and sim_gpu_watts is None:
            raise ValueError("`sim_gpu_watts` should be the simulated GPU's power in W, got None.")
        _import_component()
        self.components = ["gpu", "cpu"] if "all" in names else names
        self.simulated = {
            "sim_cpu": sim_cpu,
            "sim_cpu_tdp": sim_cpu_tdp,
            "sim_cpu_util": sim_cpu_util,
            "sim_gpu": sim_gpu,
            "sim_gpu_watts": sim_gpu_watts,
            "sim_gpu_util": sim_gpu_util,
        }
        super().__init__(every)

    @override
    def _reset(self) -> None:
        super()._reset()
        self._sources: dict[Component, Any] = {}
        self._integrals: dict[Component, PowerIntegral] = {}

    @override
    def _open(self) -> dict[Component, Quality]:
        found = self._find_components()
        if not self._sources:
            self.problem = self.problem or "carbontracker found no device that it can read, so there is no energy."
        self._advance()
        return found

    @override
    def _shut(self) -> None:
        for source in self._sources.values():
            with contextlib.suppress(*_sensor_errors()):
                source.shutdown()
        self._sources = {}

    def _find_components(self) -> dict[Component, Quality]:
        component, qualities = _import_component(), dict[Component, Quality]()
        for part in self.components:
            name = cast("Component", part)
            qualities[name] = "unavailable"
            # some of its handlers print on the way; a training's output is not the place
            with contextlib.redirect_stdout(io.StringIO()):
                try:
                    found = component.Component(name, pids=[], devices_by_pid=False, logger=_Quiet(), **self.simulated)
                    if not found.available():
                        continue
                    found.init()
                    found.handler.power_usage()
                except _sensor_errors() as error:
                    self.problem = f"carbontracker cannot read the {name}: {_say(error)}."
                    continue
            kind = type(found.handler).__name__
            self._sources[name] = found
            qualities[name] = "modelled" if kind.startswith(("Generic", "Simulated")) else "measured"
        return qualities

    @override
    def _advance(self) -> dict[Component, float]:
        joules: dict[Component, float] = {}
        for name, source in self._sources.items():
            begin = time.monotonic()
            try:
                power = math.fsum(float(watts) for watts in source.handler.power_usage())
            except _sensor_errors() as error:
                self.problem = f"carbontracker cannot read the {name}: {_say(error)}; its energy stays where it is."
                self._integrals.pop(name, None)
                continue
            if math.isfinite(power) and power >= 0.0:
                # RAPL's reading is a mean over a second that it sleeps; it holds for the middle of that second
                at = (begin + time.monotonic()) / 2
                joules[name] = self._integrals.setdefault(name, PowerIntegral(math.inf)).add(at, power).joules
        return joules


class _Quiet:
    """Stands where carbontracker's components want a logger; their errors reach us as exceptions."""

    def err_critical(self, message: str) -> None:
        pass

    err_warn = err_info = err_debug = info = err_critical

    def output(self, message: str, verbose_level: int = 0) -> None:
        pass


def _import_component() -> Any:
    try:
        from carbontracker.components import component
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "`meter` \"carbontracker\" needs the package: pip install 'lightning-green[carbontracker]'."
        ) from error
    # this logger of a module of theirs writes to standard output whatever the verbosity
    logging.getLogger("carbontracker.root.err").setLevel(logging.CRITICAL + 1)
    return component


def _sensor_errors() -> tuple[type[BaseException], ...]:
    import pynvml
    from carbontracker import exceptions

    # its own exceptions, NVML's, and what reading files under /sys and parsing them can raise
    named = [value for value in vars(exceptions).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*named, pynvml.NVMLError, OSError, ValueError, TypeError, AttributeError, IndexError)


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
