"""The available sources and their state."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.live import PolledSignal
from lightning_green.grid.providers import electricity_maps, watttime
from lightning_green.grid.providers.electricity_maps import ElectricityMapsSignal
from lightning_green.grid.providers.energi_data_service import AREAS
from lightning_green.grid.providers.energy_charts import COUNTRIES
from lightning_green.grid.registry import named_source
from lightning_green.grid.signal import GridSignal, Reading
from lightning_green.grid.zones import parse_place
from lightning_green.utilities.durations import format_duration
from lightning_green.utilities.http.errors import ServiceError


def candidates(zone: str | None, environ: Mapping[str, str] | None = None) -> Iterator[tuple[str, GridSignal | str]]:
    """Yield the name of each service with its signal for ``zone``, or the reason why it is not available.

    Args:
        zone: Zone that the user named, or None.
        environ: Environment with the credentials; None for the process's own.

    Raises:
        ValueError: If ``zone`` is invalid.

    """
    environ = os.environ if environ is None else environ
    place = None if zone is None or "_" in zone else parse_place(zone)
    code = None if place is None else place.code
    own_region = zone is not None and (place is None or code is None)
    # name, required variables, whether it covers the zone, the zones that it covers
    services = (
        ("electricity-maps", (electricity_maps.TOKEN_VARIABLE,), place is not None, "any zone, such as --zone DE"),
        (
            "watttime",
            (watttime.USER_VARIABLE, watttime.PASSWORD_VARIABLE),
            own_region,
            "its own regions and coordinates, such as --zone CAISO_NORTH",
        ),
        ("neso", (), code == "GB", "--zone GB"),
        ("energi-data-service", (), code in AREAS, "--zone DK1 and DK2"),
        ("energy-charts", (), code in COUNTRIES, "the countries of Europe"),
    )
    for name, variables, is_covered, coverage in services:
        missing = [variable for variable in variables if not environ.get(variable, "").strip()]
        if missing:
            yield name, f"not configured: {' and '.join(missing)} not set"
        elif not is_covered:
            yield name, f"not asked{'' if zone is None else f' about {zone}'}: it covers {coverage}"
        else:
            yield name, named_source(name, code or zone)


def check(signal: GridSignal, now: datetime) -> tuple[bool, str]:
    """Ask ``signal``, on the calling thread; return whether it works, and one line about its values or its failure."""
    failures: list[str] = []
    try:
        if isinstance(signal, (PolledSignal, ChainSignal)):
            failures = signal.refresh(now, force=True)
        if isinstance(signal, ElectricityMapsSignal) and signal.problem is None:
            failures += _missing_routes(signal)
        reading, forecast = signal.intensity(now), signal.forecast(now, timedelta(hours=96))
        clock = [message for message in signal.pop_messages() if "clock" in message]
    finally:
        signal.close()
    if signal.problem is not None or reading is None:
        return False, "; ".join(dict.fromkeys(failures)) or signal.problem or "it has no present value"
    reach = max(0.0, (forecast.end - now).total_seconds()) if forecast is not None and forecast.end is not None else 0.0
    ahead = f"forecast {format_duration(reach)}" if reach > 3600 else "no forecast"
    values = f"{reading.value:.0f} gCO2e/kWh {reading.quality}, {age(reading, now)}, {ahead}, {signal.kind}"
    return not clock, "; ".join([values, *dict.fromkeys([*failures, *clock])])


def age(reading: Reading, now: datetime) -> str:
    """Return the age of a reading as text."""
    if reading.quality == "static":
        return "a long-run mean"
    return f"of {reading.measured_at:%H:%M} UTC, {format_duration((now - reading.measured_at).total_seconds())} ago"


def _missing_routes(signal: ElectricityMapsSignal) -> list[str]:
    try:
        access = signal.access()
    except ServiceError as error:
        return [str(error)]
    if access is None or "*" in access or "carbon-intensity/forecast" in access:
        return []
    return ["the token's plan has no forecast, so the same hours of earlier days are used"]
