"""``grid="auto"``: the best source that can be had here, and why."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping

from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.live.signal import LiveSignal
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

    In this order: Electricity Maps where its token is in the environment; WattTime where its log-in is and the zone
    is one of its regions or coordinates; what the zone offers without a key (NESO, Energi Data Service, energy-charts);
    the country's annual mean, with which nothing waits. Sources of the same kind stand in for each other.

    Args:
        zone: Electricity Maps zone, ISO country, WattTime region or ``"52.5,13.4"``; None for the environment variable
            ``LIGHTNING_GREEN_ZONE``.
        environ: The environment; None for the process's own.

    Returns:
        The signal, whose :meth:`describe` says why it was taken; None, with a warning, where no zone is known: then
        there is energy and no gCO2e.

    Raises:
        ValueError: If ``zone`` cannot be read, or nothing at all is known about it.

    """
    environ = os.environ if environ is None else environ
    zone = zone or environ.get(ZONE_VARIABLE, "").strip() or None
    if zone is None:
        warnings.warn(
            f'`grid="auto"` needs a zone, which is never guessed: pass grid="auto:DE" (or set {ZONE_VARIABLE}). '
            "Until then there is energy, no gCO2e, and no waiting.",
            stacklevel=3,
        )
        return None
    token = environ.get(electricity_maps.TOKEN_VARIABLE, "").strip()
    has_watttime = bool(environ.get(watttime.USER_VARIABLE) and environ.get(watttime.PASSWORD_VARIABLE))
    if "_" in zone:  # only WattTime's regions are written so
        return _because(WattTimeSignal(zone), f"{zone} is a region of WattTime; a marginal signal, which plans")
    place = parse_place(zone)
    if token:
        first = _because(ElectricityMapsSignal(zone), f"{electricity_maps.TOKEN_VARIABLE} is set")
        return _chain(first, [_charts(place), _mean(zone)])
    if has_watttime and place.code is None:
        return _because(WattTimeSignal(zone), f"{watttime.USER_VARIABLE} is set; a marginal signal, which plans")
    without = f"{electricity_maps.TOKEN_VARIABLE} is not set"
    if has_watttime:
        without += ", WattTime takes its own regions and coordinates alone"
    return _without_key(zone, place, without)


def _without_key(zone: str, place: Place, without: str) -> GridSignal:
    if place.code == "GB":  # Northern Ireland and the islands are zones of their own
        return _because(NesoSignal(), f"{without}, and NESO serves Great Britain without a key")
    if place.code in AREAS:
        reason = f"{without}, and Energi Data Service serves Denmark without a key"
        return _because(EnergiDataServiceSignal(place.code), reason)
    charts = _charts(place)
    if charts is not None:
        reason = f"{without}, and energy-charts serves {charts.zone} without a key"
        return _chain(_because(charts, reason), [_mean(zone)])
    mean = _mean(zone)
    if mean is None:
        instead = "a country such as" if place.code else "the country that they lie in, such as"
        raise ValueError(
            f"`grid` as auto finds no source for {zone!r} without a key: set {electricity_maps.TOKEN_VARIABLE}"
            f"{'' if place.code else f' or {watttime.USER_VARIABLE} and {watttime.PASSWORD_VARIABLE}'}, or pass "
            f'{instead} "DE", or a signal of your own.'
        )
    mean.note = f"{without}, and no service answers for {zone} without a key"
    return mean


def _charts(place: Place) -> LiveSignal | None:
    # a country's figure does not stand for one of its zones, but for the one zone that most countries are
    return EnergyChartsSignal(place.code) if place.code in COUNTRIES else None


def _mean(zone: str) -> AnnualMean | None:
    try:
        return AnnualMean(zone) if country_code(zone) is not None else None
    except ValueError:
        return None


def _because(signal: LiveSignal, reason: str) -> LiveSignal:
    signal.reason = f"auto: {reason}"
    return signal


def _chain(first: GridSignal, rest: list[LiveSignal | AnnualMean | None]) -> GridSignal:
    others = [signal for signal in rest if signal is not None]
    return ChainSignal(first, fallback=list(others)) if others else first
