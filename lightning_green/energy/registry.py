"""From what a user writes as ``meter=`` to a meter."""

from __future__ import annotations

from lightning_green.energy.constant import ConstantPowerMeter
from lightning_green.energy.meter import Meter
from lightning_green.energy.none import NoMeter

_CHOICES = 'a Meter, "auto", "nvml", "rapl", "codecarbon", "carbontracker", a number of watts, or None for no meter'


def build_meter(meter: Meter | str | float | None) -> Meter:
    """Return the meter that ``meter`` stands for.

    Args:
        meter: A meter, ``"auto"`` (the best source of each component), ``"nvml"``, ``"rapl"``, ``"codecarbon"``,
            ``"carbontracker"``, a number of watts for a constant power, or ``"none"`` or None for no meter.

    Raises:
        TypeError: If ``meter`` is of a type that means nothing here.
        ValueError: If a string means nothing here.
        ModuleNotFoundError: If the package that a meter needs is not installed; the message names the extra.

    Example::

        >>> build_meter(300.0).describe()
        'constant power (other 300 W), modelled'

    """
    if isinstance(meter, Meter):
        return meter
    if meter is None:
        return NoMeter()
    if isinstance(meter, str):
        return _from_name(meter)
    if isinstance(meter, (int, float)) and not isinstance(meter, bool):
        return ConstantPowerMeter(meter)
    raise TypeError(f"`meter` should be {_CHOICES}; got {meter!r}.")


def _from_name(text: str) -> Meter:
    name = text.strip().lower()
    if name == "none":
        return NoMeter()
    if name == "auto":
        from lightning_green.energy.auto import AutoMeter

        return AutoMeter()
    if name == "nvml":
        from lightning_green.energy.nvml import NvmlMeter

        return NvmlMeter()
    if name == "rapl":
        from lightning_green.energy.rapl import RaplMeter

        return RaplMeter()
    if name == "codecarbon":
        from lightning_green.energy.codecarbon import CodeCarbonMeter

        return CodeCarbonMeter()
    if name == "carbontracker":
        from lightning_green.energy.carbontracker import CarbonTrackerMeter

        return CarbonTrackerMeter()
    try:
        watts = float(name.removesuffix("w"))
    except ValueError:
        raise ValueError(f"`meter` should be {_CHOICES}; got {text!r}.") from None
    return ConstantPowerMeter(watts)
