"""Power usage effectiveness of the data center: a constant, by site, or over time."""

from __future__ import annotations

import itertools
import math
import os
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_green.grid.providers.trace import ascending_rows
from lightning_green.utilities.validation import check_number

SITE_VARIABLE = "LIGHTNING_GREEN_SITE"
COLUMN = "pue"


@dataclass(frozen=True)
class PueSeries:
    """PUE over time. A value is valid until the next one; the first one also before, and the last one after it.

    Args:
        starts: Starts of the intervals in POSIX seconds, ascending.
        values: PUE of each interval, at least 1.

    Examples:
        >>> pue = PueSeries((0.0, 3600.0), (1.1, 1.5))
        >>> pue.at(-60.0), pue.at(3600.0), round(pue.mean(1800.0, 5400.0), 3)
        (1.1, 1.5, 1.3)

    """

    starts: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, time: float) -> float:
        """Return the PUE at a time in POSIX seconds."""
        return self.values[max(0, bisect_right(self.starts, time) - 1)]

    def mean(self, start: float, end: float) -> float:
        """Return the mean PUE of an interval in POSIX seconds, which may be empty."""
        first, last = bisect_right(self.starts, start), bisect_right(self.starts, end)
        if first == last or end <= start:
            return self.at(start)
        edges = [start, *self.starts[first:last], end]
        parts = [self.at(a) * (b - a) for a, b in itertools.pairwise(edges)]
        return math.fsum(parts) / (end - start)


Pue = float | PueSeries


def build_pue(value: Any, site: str | None = None) -> Pue:
    """Return a PUE from an argument.

    Args:
        value: A number of at least 1; the path of a CSV file with the columns ``datetime`` (ISO 8601 with ``Z`` or an
            offset) and ``pue``; or a mapping from sites to one of these.
        site: Key of a mapping; None for the variable ``LIGHTNING_GREEN_SITE``.

    Raises:
        ValueError: If a number is below 1 or not finite, the site of a mapping is not known, a site is given without a
            mapping, or a row of the file is invalid.
        FileNotFoundError: If the file does not exist.

    Examples:
        >>> build_pue({"frankfurt": 1.2, "oslo": 1.08}, "oslo")
        1.08

    """
    if isinstance(value, Mapping):
        key = os.environ.get(SITE_VARIABLE) if site is None else site
        if key not in value:
            given = "no site is given" if key is None else f"the site is {key!r}"
            raise ValueError(
                f"`pue` should have a value for the site of this machine; {given}, and it has "
                f"{', '.join(map(str, value))}. Set `site` or {SITE_VARIABLE} to one of these."
            )
        return build_pue(value[key])
    if site is not None:
        raise ValueError(f"`site` should be a key of a mapping in `pue`, got {site!r} and `pue` {value!r}.")
    if isinstance(value, (str, Path)):
        return _read(Path(value))
    return check_number("pue", value, 1.0)


def _read(given: Path) -> PueSeries:
    path = given.expanduser().absolute()
    if not path.is_file():
        raise FileNotFoundError(
            f"`pue` should be a number of at least 1, a mapping by site or a CSV file that exists, got {str(given)!r}."
        )
    starts, values = list[float](), list[float]()
    for where, time, raw in ascending_rows(path, COLUMN):
        starts.append(time.timestamp())
        try:
            values.append(check_number("pue", float(raw), 1.0))
        except (TypeError, ValueError):
            raise ValueError(f"{path}, {where}: the PUE should be a number of at least 1, got {raw!r}.") from None
    if not starts:
        raise ValueError(f"{path} has no rows; it should contain at least one `datetime,{COLUMN}`.")
    return PueSeries(tuple(starts), tuple(values))
