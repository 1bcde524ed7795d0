"""Base class of the meters that sample a sensor periodically."""

from __future__ import annotations

from abc import abstractmethod
from datetime import timedelta
from typing import Any

from typing_extensions import override

from lightning_green.energy.meter import Component, Energy, Meter, Quality
from lightning_green.utilities.durations import parse_duration
from lightning_green.utilities.periodic import PeriodicThread


class SampledMeter(Meter):
    """Sample a sensor in a background thread. ``read`` returns the values of the last sample.

    A subclass opens its sensor in ``_open_sensor`` and returns the energy since the previous call in
    ``_read_sensor``. If the sensor fails, neither method raises; both set ``problem``. Attributes that belong
    to the process are set in ``_reset``, so that a pickled copy starts from zero.

    Args:
        every: Time between two samples, at least 0.1 s.

    Raises:
        ValueError: If ``every`` cannot be parsed or is shorter than 0.1 s.

    """

    def __init__(self, every: str | timedelta = "10s") -> None:
        self.every = parse_duration(every, "every")
        if self.every < timedelta(seconds=0.1):
            raise ValueError(f"`every` should be 0.1 s or more, got {every!r}.")
        self._reset()

    def _reset(self) -> None:
        self._sampler: PeriodicThread | None = None
        self._resting: dict[Component, Quality] | None = None  # the qualities before a rest
        self._values: dict[Component, Energy] = {}
        self._quality: dict[Component, Quality] = {}
        self._failing: set[Component] = set()  # components whose sensor returns nonsense at the moment
        self._closed = False
        self.problem: str | None = None

    @abstractmethod
    def _open_sensor(self) -> dict[Component, Quality]:
        """Open the sensor, take the first reading, and return the quality of each component."""

    @abstractmethod
    def _read_sensor(self) -> dict[Component, float]:
        """Return the energy of each component since the previous call, in J, and set ``_failing``."""

    def _close_sensor(self) -> None:
        """Release the sensor."""

    @override
    def start(self) -> None:
        if self._values or self._closed:
            return
        self._quality = self._open_sensor()
        self._values = {name: Energy(0.0, self._current(name)) for name in self._quality}
        if any(quality != "unavailable" for quality in self._quality.values()):
            self._start_sampler()

    def _start_sampler(self) -> None:
        self._sampler = PeriodicThread(self._sample, self.every.total_seconds(), f"lightning-green {self.name}")
        self._sampler.start()

    @override
    def read(self) -> dict[Component, Energy]:
        return dict(self._values)

    @override
    def sample(self) -> None:
        if self._sampler is not None:
            self._sampler.now()
        elif self._resting is not None:
            self._sample()

    @override
    def rest(self) -> None:
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler, self._resting = None, dict(self._quality)

    @override
    def wake(self) -> None:
        if self._resting is not None:
            # An energy that is estimated because of the long time between two samples is not that of a fit.
            self._quality, self._resting = self._resting, None
            self._start_sampler()

    @override
    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._sampler is not None or self._resting is not None:
            self.sample()
            if self._sampler is not None:
                self._sampler.stop()
            self._sampler = self._resting = None
            self._close_sensor()

    @override
    def describe(self) -> str:
        parts = ", ".join(f"{name} {self._current(name)}" for name in sorted(self._quality))
        return f"{self.name} ({parts or 'not started'})"

    def _sample(self) -> None:
        values = dict(self._values)
        added = self._read_sensor()
        for name in {*added, *self._failing}:
            values[name] = Energy(values[name].joules + max(0.0, added.get(name, 0.0)), self._current(name))
        self._values = values  # a single assignment: other threads read either the old or the new values

    def _current(self, name: Component) -> Quality:
        return "unavailable" if name in self._failing else self._quality[name]

    def _mark_estimated(self, name: Component) -> None:
        """Mark the energy of a component as partly estimated from now on."""
        if self._quality[name] == "measured":
            self._quality[name] = "modelled"

    def __getstate__(self) -> dict[str, Any]:
        # Sensors, threads and counts belong to a process.
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()
