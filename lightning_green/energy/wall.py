"""Base class of the meters that read an external power meter, a PDU or a BMC over HTTP."""

from __future__ import annotations

import math
import os
import time
from abc import abstractmethod
from datetime import timedelta
from typing import Literal

from typing_extensions import override

from lightning_green.energy.counter import EnergyCounter, ImplausibleReadingError, PowerIntegral
from lightning_green.energy.meter import COMPONENTS, Component, Quality
from lightning_green.energy.sampled import SampledMeter
from lightning_green.utilities.http.errors import ServiceError
from lightning_green.utilities.http.secret import read_secret
from lightning_green.utilities.http.transport import Limits, Transport
from lightning_green.utilities.http.url import check_url
from lightning_green.utilities.units import JOULES_PER_KWH

Unit = Literal["W", "kW", "J", "Wh", "kWh"]
TOKEN_VARIABLE = "LIGHTNING_GREEN_METER_TOKEN"  # noqa: S105  (the name of a variable)
_LIMITS = Limits(connect=2.0, read=2.0, total=4.0, attempts=1)  # a sample blocks the training at a change of state
_SCALES: dict[str, float] = {"W": 1.0, "kW": 1e3, "J": 1.0, "Wh": 3.6e3, "kWh": JOULES_PER_KWH}
_MAX_WATTS = 1e6


class WallMeter(SampledMeter):
    """Base class of the meters that read a power or a cumulative energy from an HTTP address.

    A token in ``LIGHTNING_GREEN_METER_TOKEN`` or ``token_file`` is sent as ``Authorization: Bearer``. Without a
    response, the energy keeps its last value. A cumulative energy includes the gap in the next response. A power is
    integrated by the trapezoidal rule; after a gap of more than three intervals the quality is ``"modelled"``.

    Args:
        url: Address without credentials.
        unit: ``"W"`` or ``"kW"`` for a power; ``"J"``, ``"Wh"`` or ``"kWh"`` for a cumulative energy.
        component: Component that the number measures; ``"other"`` for the whole node.
        every: Time between two samples, at least 0.1 s.
        token_file: File with the token; None for ``LIGHTNING_GREEN_METER_TOKEN``.

    Raises:
        ValueError: If an argument is invalid.

    """

    def __init__(
        self,
        url: str,
        unit: Unit = "W",
        component: Component = "other",
        every: str | timedelta = "10s",
        token_file: str | None = None,
    ) -> None:
        if unit not in _SCALES:
            raise ValueError(f"`unit` should be one of {', '.join(_SCALES)}, got {unit!r}.")
        if component not in COMPONENTS:
            raise ValueError(f"`component` should be one of {', '.join(COMPONENTS)}, got {component!r}.")
        self.url, self.unit = check_url(url, TOKEN_VARIABLE).rstrip("/"), unit
        self.component, self.token_file = component, token_file
        super().__init__(every)

    @abstractmethod
    def _fetch(self, transport: Transport, headers: dict[str, str]) -> float | None:
        """Return the number in the response, or None if it contains none."""

    @override
    def _reset(self) -> None:
        super()._reset()
        self._transport: Transport | None = None
        self._readings: EnergyCounter | PowerIntegral = (
            PowerIntegral(3.0 * self.every.total_seconds(), _MAX_WATTS)
            if self.unit in ("W", "kW")
            else EnergyCounter(_MAX_WATTS)
        )

    @override
    def _open_sensor(self) -> dict[Component, Quality]:
        self._transport = Transport(_LIMITS)
        self._quality = {self.component: "measured"}
        # Without a response the next samples try again, and the energy before the first response is unknown.
        return {self.component: "measured" if self._read_sensor() else "modelled"}

    @override
    def _read_sensor(self) -> dict[Component, float]:
        assert self._transport is not None
        try:
            headers = {}
            if self.token_file is not None or os.environ.get(TOKEN_VARIABLE):
                headers["Authorization"] = f"Bearer {read_secret(TOKEN_VARIABLE, self.token_file).reveal()}"
            before = time.monotonic()
            number = self._fetch(self._transport, headers)
            at = (before + time.monotonic()) / 2
        except ServiceError as error:
            self.problem = f"The {self.name} meter does not respond: {error}. Its energy keeps the last value."
            return {}
        if number is None or not math.isfinite(number) or number < 0:
            self.problem = (
                f"The {self.name} meter responded without a number in {self.unit}. Its energy keeps the last value."
            )
            return {}
        try:
            added = self._readings.add(at, number * _SCALES[self.unit])
        except ImplausibleReadingError as error:
            self.problem = f"The {self.name} meter responded with nonsense ({error}). Its energy is unknown meanwhile."
            self._failing = {self.component}
            return {}
        self._failing = set()
        if added.estimated:
            self._mark_estimated(self.component)
            self.problem = f"The {self.name} meter did not respond or was reset. The energy of the gap is estimated."
        return {self.component: added.joules}

    @override
    def _close_sensor(self) -> None:
        if self._transport is not None:
            self._transport.close()
