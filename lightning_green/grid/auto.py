"""``grid="auto"``: the best available source for a place."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping

from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.live import LiveSignal
from lightning_green.grid.providers import electricity_maps, watttime
from lightning_green.grid.providers.annual import AnnualMean, country_code
from lightning_green.grid.providers.electricity_maps import ElectricityMapsSignal
from lightning_green.grid.providers.energi_data_service import AREAS, EnergiDataServiceSignal
from lightning_green.grid.providers.energy_charts import COUNTRIES, EnergyChartsSignal
from lightning_green.grid.providers.neso import NesoSignal
from lightning_green.grid.providers.watttime import WattTimeSignal
from lightning_green.grid.signal import GridSignal
from lightning_green.grid.zones import Place, parse_place

ZONE_VARIABLE = "LIGHTNING_GREEN_ZONE"


def auto_grid(zone: str | None = None, environ: Mapping[str, str] | None = None) -> GridSignal | None:
    """Return the best source for ``zone``.

    The first of these: Electricity Maps, if its token is in the environment; WattTime, if its login is in the
    environment and the zone is one of its regions or coordinates; a source without a key (NESO, Energi Data Service,
    energy-charts); the annual mean of the country, with which a run does not wait. Later sources of the same kind
    become fallbacks.

    Args:
        zone: Electricity Maps zone, ISO country, cloud region, WattTime region or ``"52.5,13.4"``; None for the
            environment variable ``LIGHTNING_GREEN_ZONE``.
        environ: The environment; None for the process's own.

    Returns:
        The signal, whose ``describe`` includes the reason for the choice; None, with a warning, if there is no
        zone. Then energy is measured without gCO2e.

    Raises:
        ValueError: If ``zone`` is invalid, or no source covers it.

    """
    environ = os.environ if environ is None else environ
    zone = zone or environ.get(ZONE_VARIABLE, "").strip() or None
    if zone is None:
        warnings.warn(
            f'`grid="auto"` needs a zone, which is never guessed: pass grid="auto:DE" (or set {ZONE_VARIABLE}). '
            "Without a zone, energy is measured without gCO2e, and the run does not wait.",
            stacklevel=3,
        )
        return None
    token = environ.get(electricity_maps.TOKEN_VARIABLE, "").strip()
    has_watttime = bool(environ.get(watttime.USER_VARIABLE) and environ.get(watttime.PASSWORD_VARIABLE))
    if "_" in zone:  # only regions of WattTime contain an underscore
        return _with_reason(WattTimeSignal(zone), f"{zone} is a region of WattTime; a marginal signal, for planning")
    place = parse_place(zone)
    if token:
        first = _with_reason(ElectricityMapsSignal(zone), f"{electricity_maps.TOKEN_VARIABLE} is set")
        return _chain(first, [_charts(place), _mean(zone)])
    if has_watttime and place.code is None:
        return _with_reason(WattTimeSignal(zone), f"{watttime.USER_VARIABLE} is set; a marginal signal, for planning")
    without = f"{electricity_maps.TOKEN_VARIABLE} is not set"
    if has_watttime:
        without += ", WattTime accepts only its own regions and coordinates"
    return _source_without_key(zone, place, without)


def _source_without_key(zone: str, place: Place, without: str) -> GridSignal:
    if place.code == "GB":  # Northern Ireland and the islands have their own zones
        return _with_reason(NesoSignal(), f"{without}, and NESO covers Great Britain without a key")
    if place.code in AREAS:
        reason = f"{without}, and Energi Data Service covers Denmark without a key"
        return _with_reason(EnergiDataServiceSignal(place.code), reason)
    charts = _charts(place)
    if charts is not None:
        reason = f"{without}, and energy-charts covers {charts.zone} without a key"
        return _chain(_with_reason(charts, reason), [_mean(zone)])
    mean = _mean(zone)
    if mean is None:
        instead = "a country such as" if place.code else "their country, such as"
        raise ValueError(
            f"`grid` as auto finds no source for {zone!r} without a key: set {electricity_maps.TOKEN_VARIABLE}"
            f"{'' if place.code else f' or {watttime.USER_VARIABLE} and {watttime.PASSWORD_VARIABLE}'}, or pass "
            f'{instead} "DE", or your own signal.'
        )
    return _with_reason(mean, f"{without}, and no service covers {zone} without a key")


def _charts(place: Place) -> LiveSignal | None:
    # Most countries are one zone. The value of a country is not used for one of several zones.
    return EnergyChartsSignal(place.code) if place.code in COUNTRIES else None


def _mean(zone: str) -> AnnualMean | None:
    try:
        return AnnualMean(zone) if country_code(zone) is not None else None
    except ValueError:
        return None


def _with_reason(signal: GridSignal, reason: str) -> GridSignal:
    signal.reason = f"auto: {reason}"
    return signal


def _chain(first: GridSignal, rest: list[LiveSignal | AnnualMean | None]) -> GridSignal:
    others = [signal for signal in rest if signal is not None]
    return ChainSignal(first, fallback=list(others)) if others else first
