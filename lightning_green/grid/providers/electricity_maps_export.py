"""The CSV files that Electricity Maps offers for download at https://app.electricitymaps.com/datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

_TIME = "datetime (utc)"
_VALUES = {
    "carbon intensity gco2eq/kwh (direct)": "average/direct",
    "carbon intensity gco2eq/kwh (life cycle)": "average/lifecycle",
    "carbon intensity gco2eq/kwh (lca)": "average/lifecycle",  # files of 2023 and before
}


@dataclass(frozen=True)
class ExportColumns:
    """Names of the columns of one file. Their spelling differs from year to year.

    Args:
        time: Start of the interval, UTC without an offset.
        values: Carbon intensity by kind, for example ``{"average/direct": "Carbon intensity gCO2eq/kWh (direct)"}``.
        zone: Zone id, or None if the file has no such column.
        estimated: Whether Electricity Maps estimated the value, or None if the file has no such column.

    """

    time: str
    values: Mapping[str, str]
    zone: str | None = None
    estimated: str | None = None

    @classmethod
    def find(cls, names: Sequence[str]) -> ExportColumns | None:
        """Return the columns among ``names``; None if the file is not an export of Electricity Maps."""
        known = {name.strip().casefold().replace("₂", "2"): name for name in names}
        values = {kind: known[name] for name, kind in _VALUES.items() if name in known}
        if _TIME not in known or not values:
            return None
        return cls(known[_TIME], values, known.get("zone id"), known.get("data estimated"))

    def convert(self, row: Mapping[str, str | None], value: str) -> dict[str, str | None]:
        """Return a row with the columns ``datetime``, ``carbon_intensity``, ``quality`` and ``zone``.

        Args:
            row: The row of the export.
            value: Name of the column of the carbon intensity.

        """
        is_estimated = self.estimated is not None and (row[self.estimated] or "").strip().casefold() == "true"
        return {
            "datetime": _with_offset(row[self.time]),
            "carbon_intensity": row[value],
            "quality": "estimated" if is_estimated else "measured",
            "zone": None if self.zone is None else row[self.zone],
        }


def _with_offset(raw: str | None) -> str | None:
    """Return the time with an offset; text that is not a time unchanged, for the caller to report."""
    try:
        time = datetime.fromisoformat((raw or "").strip())
    except ValueError:
        return raw
    return (time.replace(tzinfo=timezone.utc) if time.tzinfo is None else time).isoformat()
