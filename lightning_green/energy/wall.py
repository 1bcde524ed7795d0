"""Energy of a whole node from outside it: a wall meter, a PDU or a BMC, over HTTP."""

from __future__ import annotations

import math
import os
import time
from abc import abstractmethod
from datetime import timedelta
from typing import Literal

from typing_extensions import override

from lightning_green.energy.counter import EnergyCounter, PowerIntegral
from lightning_green.energy.meter import COMPONENTS, Component, Quality
from lightning_green.energy.sampled import SampledMeter
from lightning_green.utilities.http.errors import ServiceError
from lightning_green.utilities.http.secret import read_secret
from lightning_green.utilities.http.transport import Limits, Transport

Unit = Literal["W", "kW", "J", "Wh", "kWh"]
TOKEN_VARIABLE = "LIGHTNING_GREEN_METER_TOKEN"  # noqa: S105  (the name of a variable)
_LIMITS = Limits(connect=2.0, read=2.0, total=4.0, attempts=1)  # a sample is waited for where the state changes
_SCALES: dict[str, float] = {"W": 1.0, "kW": 1e3, "J": 1.0, "Wh": 3.6e3, "kWh": 3.6e6}
_MOST_WATTS = 1e6


class WallMeter(SampledMeter):
    """Base of the meters that ask an address: a power that is integrated here, or a counter of energy.

    If ``LIGHTNING_GREEN_METER_TOKEN`` is set (or ``token_file`` given), it is sent as ``Authorization: Bearer``. An
    answer that does not come leaves the energy where it is. A counter makes up for it with the next one; between two
    samples of power that lie more than three intervals apart, what the trapezium rule fills in is ``"modelled"``.

    Args:
        url: Address; no credential belongs into it.
        unit: Unit of the number: ``"W"`` or ``"kW"`` for a power, ``"J"``, ``"Wh"`` or ``"kWh"`` for a counter.
        component: What the number stands for: ``"other"`` for a whole node.
        every: Time between two samples.
        token_file: A file that holds the token; None for the environment.

    Raises:
        ValueError: If an argument cannot be read.

    """

    def __init__(
        self,
        url: str,
        unit: Unit = "W",
        component: Component = "other",
        every: str | timedelta = "10s",
        token_file: str | None = None,
    ) -> None:
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise ValueError(f"`url` should begin with http:// or https://, got {url!r}.")
        if "@" in url.split("//", 1)[1].split("/", 1)[0]:
            raise ValueError(f"`url` should hold no password; set {TOKEN_VARIABLE} or `token_file` instead.")
        if unit not in _SCALES:
            raise ValueError(f"`unit` should be one of {', '.join(_SCALES)}, got {unit!r}.")
        if component not in COMPONENTS:
            raise ValueError(f"`component` should be one of {', '.join(COMPONENTS)}, got {component!r}.")
        self.url, self.unit, self.component, self.token_file = url.rstrip("/"), unit, component, token_file
        super().__init__(every)

    @abstractmethod
    def _ask(self, transport: Transport, headers: dict[str, str]) -> float | None:
        """Return the number that the address answers with; None where it holds none."""

    @override
    def _reset(self) -> None:
        super()._reset()
        self._transport: Transport | None = None
        self._counter = EnergyCounter(_MOST_WATTS)
        self._integral = PowerIntegral(3.0 * self.every.total_seconds())
        self._answered = False

    @override
    def _open(self) -> dict[Component, Quality]:
        self._transport = Transport(_LIMITS)
        self._quality = {self.component: "measured"}
        self._advance()
        # one that does not answer yet may later: it is asked again, and what came before its first answer is not known
        return {self.component: "measured" if self._answered else "modelled"}

    @override
    def _advance(self) -> dict[Component, float]:
        assert self._transport is not None
        try:
            headers = {}
            if self.token_file is not None or os.environ.get(TOKEN_VARIABLE):
                headers["Authorization"] = f"Bearer {read_secret(TOKEN_VARIABLE, self.token_file).reveal()}"
            before = time.monotonic()
            number = self._ask(self._transport, headers)
            at = (before + time.monotonic()) / 2
        except ServiceError as error:
            self.problem = f"The {self.name} meter does not answer: {error}; its energy stays where it is."
            return {}
        if number is None or not math.isfinite(number) or number < 0:
            self.problem = f"The {self.name} meter answers without a number of {self.unit}; its energy stays."
            return {}
        self._answered = True
        value = number * _SCALES[self.unit]
        added = self._integral.add(at, value) if self.unit in ("W", "kW") else self._counter.add(at, value)
        if added.guessed:
            self._guessed(self.component)
            self.problem = f"The {self.name} meter was silent or reset for a while, which is filled in."
        return {self.component: added.joules}

    @override
    def _shut(self) -> None:
        if self._transport is not None:
            self._transport.close()
