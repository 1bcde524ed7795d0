"""What happened between the last process of a fit and this one: the intensities, and the energy of idle devices."""

from __future__ import annotations

import math
from typing import Any

from lightning_green.ledger.events import DevicesIdle
from lightning_green.ledger.intensity_series import MAX_VALUES, series_record
from lightning_green.run.recorder import Recorder, utc
from lightning_green.supervisor.launchers import current_allocation

HOUR = 3600


def intensities_while_away(recorder: Recorder, until: float) -> dict[str, Any] | None:
    """Return the intensities since the last process, in which the run-now baseline may have run; None if unknown.

    Args:
        recorder: Recorder of the fit on the node of rank 0, before its first event.
        until: Start of this process in seconds since the epoch.

    """
    since = recorder.account.measured_until  # a later event is one of the supervisor
    if recorder.grid is None or since is None or until <= since:
        return None
    step = HOUR * max(1, math.ceil((until - since) / HOUR / (MAX_VALUES - 1)))
    starts = [since, *(float(one) for one in range(int(since // step + 1) * step, math.ceil(until), step))]
    ends = [*starts[1:], until]
    means = [recorder.measured_mean(start, end) for start, end in zip(starts, ends, strict=True)]
    values = [None if mean is None else round(mean, 3) for mean in means]
    return series_record(utc(since), [start - since for start in starts], values)


def idle_devices(recorder: Recorder, until: float) -> DevicesIdle | None:
    """Return the energy of devices that stayed allocated after the last planned exit, or None.

    In another allocation, it is not known when the earlier one has ended, and only the
    recorded time counts.

    Args:
        recorder: Recorder of the fit on the node of rank 0, before its first event.
        until: Start of this process in seconds since the epoch.

    """
    totals = recorder.totals
    if totals.out_since is None or not totals.idle_watts or totals.allocation is None:
        return None
    seconds = totals.kept_seconds
    if totals.allocation == current_allocation():
        seconds += max(0.0, until - (totals.kept_until or totals.out_since))
    elif totals.kept_until is not None:
        until = min(until, totals.kept_until)
    else:
        return None
    intensity = recorder.intensity_between(totals.out_since, until)
    return DevicesIdle(
        idle_joules=round(totals.idle_watts * seconds, 3),
        since=utc(totals.out_since),
        until=utc(until),
        idle_intensity=None if intensity is None else intensity.to_json(),
        idle_pue=recorder.mean_pue(totals.out_since, until),
        reason="the devices stayed allocated; modeled",
    )
