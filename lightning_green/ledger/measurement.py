"""Energy and carbon intensity in an event of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from lightning_green.energy.meter import Energy, Quality
from lightning_green.ledger.event_fields import read_float, read_text
from lightning_green.utilities.text import printable

_QUALITIES = get_args(Quality)
_NUMBERS = ("pue", "power", "speed", "data_wait_s")
_RANGES = {"power": (1e-6, 1e6), "speed": (0.0, 1e6), "pue": (0.0, 1e6)}
FIELDS = (*_NUMBERS, "joules", "intensity")
"""Fields of an event's JSON that hold the measurement."""


@dataclass(frozen=True)
class Intensity:
    """The carbon intensity that an interval is priced with.

    Args:
        value: Mean intensity since the previous event in gCO2e/kWh.
        kind: Kind of the signal, for example ``"average/lifecycle"``.
        source: Name of the signal.
        zone: Grid zone, or None.
        now: Intensity at the time of the event in gCO2e/kWh, or None.
        measured_at: Time that ``now`` is true for (ISO 8601), or None.
        quality: Quality of ``now``, or None.

    """

    value: float
    kind: str
    source: str = ""
    zone: str | None = None
    now: float | None = None
    measured_at: str | None = None
    quality: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the intensity as JSON."""
        return {
            "value": self.value,
            "now": self.now,
            "kind": self.kind,
            "source": self.source,
            "zone": self.zone,
            "measured_at": self.measured_at,
            "quality": self.quality,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Intensity:
        """Return the intensity that ``to_json`` wrote."""
        now = record.get("now")
        texts = {name: record.get(name) for name in ("zone", "measured_at", "quality")}
        return cls(
            value=read_float(record["value"]),
            kind=printable(read_text(record["kind"])),
            source=printable(read_text(record.get("source", ""))),
            now=None if now is None else read_float(now),
            **{name: None if text is None else printable(read_text(text)) for name, text in texts.items()},
        )


@dataclass(frozen=True)
class Measurement:
    """Energy up to an event, and how it was used since the previous one.

    Args:
        joules: Energy by component since the fit began in this process (before PUE).
        intensity: Carbon intensity since the previous event; None if it is unknown.
        pue: Power usage effectiveness of the data center.
        power: Power of the throttle level as a fraction of full power.
        speed: Speed of the throttle level as a fraction of full speed.
        data_wait_s: Seconds that this process has waited for training batches.

    """

    joules: Mapping[str, Energy]
    intensity: Intensity | None = None
    pue: float = 1.0
    power: float = 1.0
    speed: float = 1.0
    data_wait_s: float = 0.0

    @property
    def total_joules(self) -> float:
        """Energy of all components in J."""
        return sum(energy.joules for energy in self.joules.values())

    def to_json(self) -> dict[str, Any]:
        """Return the fields of an event's JSON that hold the measurement."""
        return {
            "power": self.power,
            "speed": self.speed,
            "joules": {
                name: {"value": energy.joules, "quality": energy.quality} for name, energy in self.joules.items()
            },
            "intensity": None if self.intensity is None else self.intensity.to_json(),
            "pue": self.pue,
            "data_wait_s": self.data_wait_s,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Measurement:
        """Return the measurement in an event's JSON.

        Raises:
            ValueError: If a quality is unknown, or a number is out of its range.

        """
        joules: dict[str, Energy] = {}
        for name, energy in record["joules"].items():
            if energy["quality"] not in _QUALITIES:
                raise ValueError(f"unknown quality {energy['quality']!r:.40}")
            joules[printable(name)] = Energy(read_float(energy["value"]), energy["quality"])
        intensity = record.get("intensity")
        numbers = {name: read_float(record[name], *_RANGES.get(name, ())) for name in _NUMBERS if name in record}
        return cls(joules, None if intensity is None else Intensity.from_json(intensity), **numbers)
