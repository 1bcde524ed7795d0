"""What the meters have in common that ask a sensor every so often."""

from __future__ import annotations

from abc import abstractmethod
from datetime import timedelta
from typing import Any

from typing_extensions import override

from lightning_green.energy.meter import Component, Energy, Meter, Quality
from lightning_green.energy.sampler import Sampler
from lightning_green.utilities.durations import parse_duration


class SampledMeter(Meter):
    """A meter that reads its sensor on a thread of its own and answers from the last sample.

    A subclass opens its sensor in :meth:`_open` and returns what was added since in :meth:`_advance`; neither raises
    where the world fails, and both say what happened in :attr:`problem`. An attribute that belongs to this process is
    named in :meth:`_reset`, so that a pickled copy starts afresh.

    Args:
        every: Time between two samples.

    Raises:
        ValueError: If ``every`` cannot be read or is shorter than a tenth of a second.

    """

    remedy: str | None = None
    """What somebody could do for a better measurement, or None."""

    def __init__(self, every: str | timedelta = "10s") -> None:
        self.every = parse_duration(every, "every")
        if self.every < timedelta(seconds=0.1):
            raise ValueError(f"`every` should be a tenth of a second or more, got {every!r}.")
        self._reset()

    def _reset(self) -> None:
        self._sampler: Sampler | None = None
        self._values: dict[Component, Energy] = {}
        self._quality: dict[Component, Quality] = {}
        self._closed = False
        self.problem: str | None = None
        self.remedy = None

    @abstractmethod
    def _open(self) -> dict[Component, Quality]:
        """Open the sensor, take its first reading, and return what each component will be worth."""

    @abstractmethod
    def _advance(self) -> dict[Component, float]:
        """Return the joules that each component used since the last call."""

    def _shut(self) -> None:
        """Let go of the sensor."""

    @override
    def start(self) -> None:
        if self._values or self._closed:
            return
        self._quality = self._open()
        self._values = {name: Energy(0.0, quality) for name, quality in self._quality.items()}
        if any(quality != "unavailable" for quality in self._quality.values()):
            self._sampler = Sampler(self._sample, self.every.total_seconds(), f"lightning-green {self.name}")
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
            self._sampler = None
            self._shut()

    @override
    def describe(self) -> str:
        parts = ", ".join(f"{name} {quality}" for name, quality in sorted(self._quality.items()))
        return f"{self.name} ({parts or 'not started'})"

    def _sample(self) -> None:
        values = dict(self._values)
        for name, joules in self._advance().items():
            values[name] = Energy(values[name].joules + max(0.0, joules), self._quality[name])
        self._values = values  # one assignment: a reader sees the old values or the new ones

    def _guessed(self, name: Component) -> None:
        """From here on the component's total holds a part that was filled in."""
        if self._quality[name] == "measured":
            self._quality[name] = "modelled"

    def __getstate__(self) -> dict[str, Any]:
        # sensors, threads and counts belong to their process
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()
