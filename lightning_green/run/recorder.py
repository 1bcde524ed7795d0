"""Measure a fit, write its events, and add them to its totals."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Protocol, TypeVar

from lightning_green.energy.meter import Energy, Meter
from lightning_green.grid.recorded import spec_digest
from lightning_green.grid.signal import GridSignal
from lightning_green.ledger.account import SHORTEST_SLEEP, Account
from lightning_green.ledger.events import Event, PhaseChanged, Sample, StateChanged
from lightning_green.ledger.measurement import Intensity, Measurement
from lightning_green.ledger.recorded_intensity import Place
from lightning_green.ledger.totals import UNMETERED, Totals
from lightning_green.run.pue import Pue, PueSeries
from lightning_green.utilities.clock import Clock, utc_iso

EventT = TypeVar("EventT", bound=Event)


class EventLog(Protocol):
    """What events are appended to: a ledger or a ``MemoryLog``."""

    def append(self, event: EventT) -> EventT:
        """Append an event and return it with its header."""


class MemoryLog:
    """Numbers events without writing them, for a process that has no ledger.

    Args:
        clock: Clock of the run.
        attempt: Start of the run, from 1.

    """

    def __init__(self, clock: Clock, attempt: int) -> None:
        self._clock, self._attempt, self._seq = clock, attempt, 0

    def append(self, event: EventT) -> EventT:
        """Return the event with its header."""
        self._seq += 1
        return replace(event, seq=self._seq, time_utc=utc_iso(self._clock.time()), attempt=self._attempt)


@dataclass
class Status:
    """What a fit is doing.

    Attributes:
        state: ``"running"``, ``"throttled"`` or ``"held"``.
        phase: ``"startup"``, ``"restart"``, ``"training"``, ``"validation"``, ``"checkpoint"`` or ``"held"``.
        power: Power of the throttle level as a fraction of full power.
        speed: Speed of the throttle level as a fraction of full speed.

    """

    state: str = "running"
    phase: str = "startup"
    power: float = 1.0
    speed: float = 1.0

    @property
    def level(self) -> tuple[float, float]:
        """Power and speed of the throttle level."""
        return self.power, self.speed


class Recorder:
    """Reads the meter and the grid at each event of a fit.

    Args:
        clock: Clock of the run.
        log: Where events are written.
        meter: Energy meter.
        grid: Grid signal; None if nothing is known about emissions.
        pue: Power usage effectiveness of the data center.
        account: Totals of the fit up to now.
        node_rank: Number of this node; 0 is the node of rank 0.
        fit: Number of the fit within its run.

    Attributes:
        status: State, phase and throttle level.
        global_step: Optimizer steps up to the last event.
        read_step: Returns the optimizer steps now, while a fit is in progress.
        data_wait_seconds: Seconds that this process has waited for training batches.
        last_monotonic: Monotonic time of the last event in seconds.
        signal: Digest of the spec of the grid signal; empty if it has none.
        lock: Protects the meter reading and the totals; reentrant.

    """

    def __init__(
        self,
        clock: Clock,
        log: EventLog,
        meter: Meter,
        grid: GridSignal | None,
        pue: Pue,
        account: Account,
        node_rank: int,
        fit: int,
    ) -> None:
        self.clock, self.log, self.meter, self.grid, self._pue = clock, log, meter, grid, pue
        self.account, self.node_rank, self.fit = account, node_rank, fit
        self.status = Status()
        self.global_step = 0
        self.read_step: Callable[[], int] | None = None
        self.data_wait_seconds = 0.0
        self.lock = threading.RLock()
        self._last = (clock.time(), 0.0)
        self.last_monotonic = clock.monotonic()
        self.signal = "" if grid is None else spec_digest(grid.spec())

    @property
    def totals(self) -> Totals:
        """Totals up to the last event."""
        return self.account.totals

    @property
    def pue(self) -> float:
        """Power usage effectiveness now."""
        return self._pue.at(self.clock.time()) if isinstance(self._pue, PueSeries) else self._pue

    def mean_pue(self, start: float, end: float) -> float:
        """Return the mean PUE between two times in seconds since the epoch."""
        return self._pue.mean(start, end) if isinstance(self._pue, PueSeries) else self._pue

    @property
    def last_time(self) -> float:
        """Time of the last event in seconds since the epoch."""
        return self._last[0]

    def restart_interval(self, unmetered: float = 0.0) -> None:
        """Start the first interval, some seconds before now if the process was not metered from its start."""
        self._last = (self.clock.time() - unmetered, 0.0)
        self.last_monotonic = self.clock.monotonic() - unmetered

    def record(self, event: EventT, unmetered_joules: float = 0.0) -> EventT:
        """Write an event with the energy and the intensity up to now, and return it.

        Args:
            event: The event.
            unmetered_joules: Energy in J since the last event that no meter has measured, which is modeled.

        """
        with self.lock:
            now, monotonic = self.clock.time(), self.clock.monotonic()
            if self.read_step is not None:
                self.global_step = self.read_step()
            joules: dict[str, Energy] = {
                name: Energy(round(energy.joules, 3), energy.quality) for name, energy in self.meter.read().items()
            }
            if unmetered_joules:
                joules = {**joules, UNMETERED: Energy(round(unmetered_joules, 3), "modelled")}
            status, total = self.status, sum(energy.joules for energy in joules.values()) - unmetered_joules
            measured = Measurement(
                joules=joules,
                intensity=self._intensity(self.last_time, now, monotonic - self.last_monotonic),
                pue=self.mean_pue(self.last_time, now),
                power=status.power,
                speed=status.speed,
                data_wait_s=round(self.data_wait_seconds, 6),
            )
            complete = replace(
                event,
                phase=status.phase,
                state=status.state,
                measured=measured,
                global_step=self.global_step,
                fit=self.fit,
                node_rank=self.node_rank,
            )
            written = self.log.append(complete)
            self.account.add(written)
            self._last, self.last_monotonic = (now, total), monotonic
            return written

    def enter(
        self,
        state: str | None = None,
        phase: str | None = None,
        reason: str = "",
        until: datetime | None = None,
        level: str | None = None,
    ) -> None:
        """Enter another state, throttle level or phase; the energy up to now belongs to the previous one.

        Args:
            state: New state; None to keep it.
            phase: New phase; None to keep it.
            reason: Reason for the change.
            until: Planned end of the state.
            level: Throttle level of the state.

        """
        with self.lock:
            self.meter.sample()
            other_state = (state or self.status.state) != self.status.state
            self.status.state, self.status.phase = state or self.status.state, phase or self.status.phase
            if other_state or until is not None or level is not None:
                self.record(StateChanged(reason=reason, until=until, level=level))
            else:
                self.record(PhaseChanged(reason=reason))

    def set_level(self, power: float, speed: float) -> None:
        """Set another throttle level, before ``enter`` records the state; energy until then is at the old level."""
        with self.lock:
            self.meter.sample()
            self.record(Sample())
            self.status.power, self.status.speed = power, speed
            self.meter.set_load(power)

    def since_last(self) -> float:
        """Return the energy since the last event in J."""
        with self.lock:
            return max(0.0, sum(energy.joules for energy in self.meter.read().values()) - self._last[1])

    def is_energy_known(self) -> bool:
        """Return whether any component is measured or modeled now, or was before."""
        return self.totals.is_energy_known or any(one.quality != "unavailable" for one in self.meter.read().values())

    def mean_intensity(self, start: float, end: float) -> float | None:
        """Return the mean intensity between two times in seconds since the epoch; None if it is unknown."""
        return None if self.grid is None else _between(self.grid.mean, start, end)

    def intensity_between(self, start: float, end: float) -> Intensity | None:
        """Return the mean intensity between two times in seconds since the epoch with its source, if it is known."""
        return self._intensity(start, end, end - start)

    def measured_mean(self, start: float, end: float) -> float | None:
        """Return the mean intensity of a past interval in gCO2e/kWh from values of that time, or None."""
        return None if self.grid is None else _between(self.grid.measured_mean, start, end)

    def mean_at(self, place: Place, start: float, end: float) -> float | None:
        """Return the mean intensity of a place between two times, if this grid signal is true for it."""
        if self.grid is None or place != Place(str(self.grid.kind), self.grid.zone, self.grid.source, self.signal):
            return None
        return self.measured_mean(start, end)

    def _intensity(self, start: float, end: float, awake: float) -> Intensity | None:
        if self.grid is None:
            return None
        reading = self.grid.intensity(utc(end))
        if 0.0 <= awake < end - start - SHORTEST_SLEEP:  # the energy was used before and after the machine slept
            parts = [self.mean_intensity(start, start + awake / 2), self.mean_intensity(end - awake / 2, end)]
            mean = None if None in parts else sum(part for part in parts if part is not None) / 2
        else:
            mean = self.mean_intensity(start, end)
        if mean is None:
            return None
        return Intensity(
            value=round(mean, 6),
            kind=str(self.grid.kind),
            source=self.grid.source,
            zone=self.grid.zone,
            now=None if reading is None else reading.value,
            measured_at=None if reading is None else reading.measured_at.isoformat(),
            quality=None if reading is None else reading.quality,
        )


def _between(mean: Callable[[datetime, datetime], float | None], start: float, end: float) -> float | None:
    try:
        return mean(utc(start), utc(end))
    except (OverflowError, ValueError, OSError):  # a time after the year 9999, from a clock that was set back
        return None


def utc(seconds: float) -> datetime:
    """Return seconds since the epoch as a datetime."""
    return datetime.fromtimestamp(seconds, timezone.utc)
