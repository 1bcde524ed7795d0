"""Meters by name, and parsing of the ``meter=`` argument."""

from __future__ import annotations

import copy
import inspect

from lightning_green.energy.constant import ConstantPowerMeter
from lightning_green.energy.meter import Meter
from lightning_green.energy.none import NoMeter
from lightning_green.utilities.registry import Registry

MeterLike = Meter | str | float | None

METERS = Registry(
    "lightning_green.energy",
    {
        "auto": "lightning_green.energy.auto:AutoMeter",
        "nvml": "lightning_green.energy.nvml:NvmlMeter",
        "rapl": "lightning_green.energy.rapl:RaplMeter",
        "codecarbon": "lightning_green.energy.codecarbon:CodeCarbonMeter",
        "carbontracker": "lightning_green.energy.carbontracker:CarbonTrackerMeter",
        "slurm": "lightning_green.energy.slurm:SlurmMeter",
        "none": "lightning_green.energy.none:NoMeter",
    },
)
"""Meters by the name that ``meter="name"`` uses. Other packages add meters through entry points."""


def build_meter(meter: MeterLike) -> Meter:
    """Return the meter for a ``meter=`` argument, for one fit.

    A meter that defines its pickled state is copied, so that each fit starts from zero and has its own GPUs. Any other
    meter is returned itself.

    Args:
        meter: A meter, the name of a registered meter such as ``"auto"`` or ``"nvml"``, a constant power in W, or None
            for no meter. ``"auto:node"`` is ``AutoMeter(share="node")``; ``"rapl"`` and ``"codecarbon"`` have a share
            too.

    Raises:
        TypeError: If ``meter`` has an unsupported type, or the registered object is not a subclass of ``Meter``.
        ValueError: If a string is neither a name nor a power.
        ModuleNotFoundError: If a meter requires a package that is not installed; the message contains the extra.

    Examples:
        >>> build_meter(300.0).describe()
        'constant power (other 300 W), modelled'

    """
    if isinstance(meter, Meter):
        return copy.copy(meter) if _defines_state(meter) else meter
    if meter is None:
        return NoMeter()
    if isinstance(meter, str):
        return _from_string(meter)
    if isinstance(meter, (int, float)) and not isinstance(meter, bool):
        return ConstantPowerMeter(meter)
    raise TypeError(f"`meter` should be {_choices()}; got {meter!r}.")


def _from_string(text: str) -> Meter:
    name, _, share = text.strip().lower().partition(":")
    if name in METERS:
        cls: type[Meter] = METERS.load_class(name, Meter)
        if not share:
            return cls()
        if "share" not in inspect.signature(cls).parameters:
            raise ValueError(f"The meter {name!r} has no share, got {text!r}. Use {name!r}.")
        return cls(share=share)  # type: ignore[call-arg]
    try:
        watts = float(name.removesuffix("w"))
    except ValueError:
        raise ValueError(f"`meter` should be {_choices()}; got {text!r}.") from None
    return ConstantPowerMeter(watts)


def _defines_state(meter: Meter) -> bool:
    # A copy of any other meter could lack its readings: a thread of the original would still write to the original.
    return getattr(type(meter), "__getstate__", None) is not getattr(object, "__getstate__", None)


def _choices() -> str:
    names = ", ".join(f'"{name}"' for name in METERS if name != "none")
    return f"a Meter, {names}, a number of watts, or None for no meter"
