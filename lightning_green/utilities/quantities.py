"""Energy, emissions and fractions as text, with the same units and digits everywhere."""

from __future__ import annotations

import math

_DIGITS = 4


def format_energy(kwh: float | None) -> str:
    """Return an energy with at least four significant digits, in Wh below 0.1 kWh.

    Examples:
        >>> format_energy(1.5), format_energy(0.0000471), format_energy(None)
        ('1.500 kWh', '0.04710 Wh', 'unknown')

    """
    if kwh is None:
        return "unknown"
    return f"{_digits(kwh)} kWh" if abs(kwh) >= 0.1 else f"{_digits(kwh * 1000)} Wh"


def format_grams(grams: float | None) -> str:
    """Return emissions with at least four significant digits, in kgCO2e from 1000 g on.

    Examples:
        >>> format_grams(1346.4073), format_grams(0.0141), format_grams(None)
        ('1.346 kgCO2e', '0.01410 gCO2e', 'unknown')

    """
    if grams is None:
        return "unknown"
    return f"{_digits(grams / 1000)} kgCO2e" if abs(grams) >= 1000 else f"{_digits(grams)} gCO2e"


def format_money(amount: float | None, currency: str = "") -> str:
    """Return an amount of money with two decimals, or four significant digits below 1.

    Examples:
        >>> format_money(1234.5, "EUR"), format_money(-0.0123456), format_money(None, "EUR")
        ('1,234.50 EUR', '-0.01235', 'unknown')

    """
    if amount is None:
        return "unknown"
    text = f"{amount:,.2f}" if abs(amount) >= 1.0 or not amount else _digits(amount)
    return f"{text} {currency}".rstrip()


def short_grams(grams: float) -> str:
    """Return emissions in mg, g or kg with two digits or more, for messages of one line.

    Examples:
        >>> short_grams(2134.5), short_grams(338.2), short_grams(12_345.6), short_grams(0.01234)
        ('2.1 kg', '338 g', '12 kg', '12 mg')

    """
    if abs(grams) >= 1000:
        return f"{_short(grams / 1000)} kg"
    return f"{_short(grams)} g" if abs(grams) >= 1 or not grams else f"{_short(grams * 1000)} mg"


def short_energy(kwh: float) -> str:
    """Return an energy in Wh or kWh with two digits or more, for messages of one line.

    Examples:
        >>> short_energy(1.54), short_energy(0.0471), short_energy(0.0)
        ('1.5 kWh', '47 Wh', '0 Wh')

    """
    return f"{_short(kwh)} kWh" if abs(kwh) >= 1.0 else f"{_short(kwh * 1000)} Wh"


def format_percent(percent: float) -> str:
    """Return a percentage with one decimal.

    Examples:
        >>> format_percent(22.94), format_percent(-0.01)
        ('22.9 %', '0.0 %')

    """
    return f"{round(percent, 1) + 0.0:.1f} %"  # the sum avoids "-0.0 %"


def quality_text(quality: str, kwh: float | None) -> str:
    """Return the quality of an energy, of which a part may be known.

    Examples:
        >>> quality_text("measured", 1.5), quality_text("unavailable", None), quality_text("unavailable", 1.5)
        ('measured', 'unavailable', 'unavailable at times')

    """
    return f"{quality} at times" if quality == "unavailable" and kwh else quality


def _short(value: float) -> str:
    if value == 0.0:
        return "0"
    return f"{value:.{min(max(1 - math.floor(math.log10(abs(value))), 0), 9)}f}"


def _digits(value: float) -> str:
    if value == 0.0:
        return "0"
    decimals = _DIGITS - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(decimals, 1), 9)}f}"
