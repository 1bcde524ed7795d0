"""Power readings of carbontracker's components, integrated over time."""

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
    """Measure the CPU and GPU energy of this node with carbontracker's power readings (extra ``carbontracker``).

    Only carbontracker's components are used, which read power. Its tracker is not used: it looks up its location over
    the network, multiplies every energy by a PUE of 1.58, prints, and ends the process if it finds no device. Power is
    sampled every ``every`` and integrated by the trapezoidal rule. The GPUs are those of ``CUDA_VISIBLE_DEVICES``, or
    all GPUs of the node.

    Values are those of the last sample. A component whose sensor fails keeps its last value. If no sensor works, all
    components are ``"unavailable"`` and ``problem`` contains the reason.

    Args:
        every: Time between two samples, at least 0.1 s.
        components: ``"all"``, ``"gpu"``, ``"cpu"`` or ``"gpu,cpu"``.
        sim_cpu: Name of a simulated CPU, for tests; requires ``sim_cpu_tdp``.
        sim_cpu_tdp: Power of the simulated CPU at full load, in W.
        sim_cpu_util: Load of the simulated CPU, in [0, 1].
        sim_gpu: Name of a simulated GPU, for tests; requires ``sim_gpu_watts``.
        sim_gpu_watts: Power of the simulated GPU at full load, in W.
        sim_gpu_util: Load of the simulated GPU, in [0, 1].

    Raises:
        ModuleNotFoundError: If carbontracker is not installed.
        ValueError: If ``every`` or ``components`` cannot be parsed, or a simulated device has no power.

    Examples:
        ```python
        EmissionsTracker(meter=CarbonTrackerMeter(), grid="typical:DE")
        ```

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
    def _open_sensor(self) -> dict[Component, Quality]:
        found = self._find_components()
        if not self._sources:
            self.problem = self.problem or "carbontracker found no device that it can read, so no energy is counted."
        self._read_sensor()
        return found

    @override
    def _close_sensor(self) -> None:
        for source in self._sources.values():
            with contextlib.suppress(*_sensor_errors()):
                source.shutdown()
        self._sources = {}

    def _find_components(self) -> dict[Component, Quality]:
        component, qualities = _import_component(), dict[Component, Quality]()
        for part in self.components:
            name = cast("Component", part)
            qualities[name] = "unavailable"
            # Some handlers print, which would appear in the output of the training.
            with contextlib.redirect_stdout(io.StringIO()):
                try:
                    found = component.Component(name, pids=[], devices_by_pid=False, logger=_Quiet(), **self.simulated)
                    if not found.available():
                        continue
                    found.init()
                    found.handler.power_usage()
                except _sensor_errors() as error:
                    self.problem = f"carbontracker cannot read the {name}: {_describe(error)}."
                    continue
            kind = type(found.handler).__name__
            self._sources[name] = found
            qualities[name] = "modelled" if kind.startswith(("Generic", "Simulated")) else "measured"
        return qualities

    @override
    def _read_sensor(self) -> dict[Component, float]:
        joules: dict[Component, float] = {}
        for name, source in self._sources.items():
            begin = time.monotonic()
            try:
                power = math.fsum(float(watts) for watts in source.handler.power_usage())
            except _sensor_errors() as error:
                self.problem = (
                    f"carbontracker cannot read the {name}: {_describe(error)}. Its energy keeps the last value."
                )
                self._integrals.pop(name, None)
                continue
            if math.isfinite(power) and power >= 0.0:
                # A RAPL reading is a mean over the second of the call, so its time is the middle of the call.
                at = (begin + time.monotonic()) / 2
                joules[name] = self._integrals.setdefault(name, PowerIntegral(math.inf)).add(at, power).joules
        return joules


class _Quiet:
    """Logger that carbontracker's components require. It discards everything, because errors arrive as exceptions."""

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
    # This logger writes to standard output at every verbosity.
    logging.getLogger("carbontracker.root.err").setLevel(logging.CRITICAL + 1)
    return component


def _sensor_errors() -> tuple[type[BaseException], ...]:
    import pynvml
    from carbontracker import exceptions

    # Its own exceptions, those of NVML, and those of reading and parsing files under /sys.
    named = [value for value in vars(exceptions).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*named, pynvml.NVMLError, OSError, ValueError, TypeError, AttributeError, IndexError)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
