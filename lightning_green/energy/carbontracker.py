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

from lightning_green.durations import parse_duration
from lightning_green.energy.meter import Component, Energy, Meter, Quality
from lightning_green.energy.sampler import Sampler


class CarbonTrackerMeter(Meter):
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
        self.every = parse_duration(every, "every")
        if self.every < timedelta(seconds=0.1):
            raise ValueError(f"`every` should be a tenth of a second or more, got {every!r}.")
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
        self._reset()

    def _reset(self) -> None:
        self._sources: dict[Component, Any] = {}
        self._quality: dict[Component, Quality] = {}
        self._last: dict[Component, tuple[float, float]] = {}
        self._values: dict[Component, Energy] = {}
        self._sampler: Sampler | None = None
        self._closed = False
        self.problem: str | None = None

    @override
    def start(self) -> None:
        if self._sampler is not None or self._closed:
            return
        self._find_components()
        self._values = {name: Energy(0.0, quality) for name, quality in self._quality.items()}
        if not self._sources:
            self.problem = self.problem or "carbontracker found no device that it can read, so there is no energy."
            return
        self._sampler = Sampler(self._sample, self.every.total_seconds(), "lightning-green carbontracker")
        self._sampler.now()
        self._sampler.start()

    @override
    def read(self) -> dict[Component, Energy]:
        return dict(self._values)

    @override
    def sample(self) -> None:
        if self._sampler is not None:
            self._sampler.now()

    @override
    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._sampler is not None:
            self._sampler.now()
            self._sampler.stop()
        for source in self._sources.values():
            with contextlib.suppress(*_sensor_errors()):
                source.shutdown()
        self._sources = {}

    @override
    def describe(self) -> str:
        parts = ", ".join(f"{name} {quality}" for name, quality in sorted(self._quality.items()))
        return f"carbontracker ({parts or 'not started'})"

    def __getstate__(self) -> dict[str, Any]:
        # sensors and threads belong to their process; a copy of the meter starts afresh
        return {"every": self.every, "components": self.components, "simulated": self.simulated}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _find_components(self) -> None:
        component = _import_component()
        for part in self.components:
            name = cast("Component", part)
            self._quality[name] = "unavailable"
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
            self._quality[name] = "modelled" if kind.startswith(("Generic", "Simulated")) else "measured"

    def _sample(self) -> None:
        values = dict(self._values)
        for name, source in self._sources.items():
            begin = time.monotonic()
            try:
                power = math.fsum(float(watts) for watts in source.handler.power_usage())
            except _sensor_errors() as error:
                self.problem = f"carbontracker cannot read the {name}: {_say(error)}; its energy stays where it is."
                self._last.pop(name, None)
                continue
            # RAPL's reading is a mean over a second that it sleeps; it holds for the middle of that second
            at = (begin + time.monotonic()) / 2
            if name in self._last and math.isfinite(power) and power >= 0:
                before, power_before = self._last[name]
                joules = (power + power_before) / 2 * max(0.0, at - before)
                values[name] = Energy(values[name].joules + joules, self._quality[name])
            self._last[name] = (at, power)
        self._values = values  # one assignment: a reader sees the old values or the new ones


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
