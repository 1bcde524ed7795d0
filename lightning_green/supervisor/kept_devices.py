"""The record that devices have stayed allocated after a planned exit, because their release was refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone

from lightning_green.ledger.events import AllocationKept, Paused
from lightning_green.ledger.ledger import Ledger
from lightning_green.supervisor.command import FitKey
from lightning_green.supervisor.launchers.local import allocation
from lightning_green.utilities.clock import SystemClock


def record_kept(paused: Mapping[FitKey, Paused], began: float, print_line: Callable[[str], None]) -> None:
    """Append to the ledgers of paused fits that their devices have been allocated up to now.

    Args:
        paused: The paused fits with their last events.
        began: Time from which this process has used the machine, in seconds since the epoch.
        print_line: Receives messages for the user.

    """
    if (kept := allocation()) is None:
        return
    now = datetime.now(timezone.utc)
    for (path, fit), last in paused.items():
        since = min(now, max(last.time, datetime.fromtimestamp(began, timezone.utc)))
        event = AllocationKept(
            reason="the release was refused", allocation=kept, since=since, until=now, state="out", fit=fit
        )
        try:
            ledger = Ledger(path, SystemClock(), last.attempt)
        except OSError as error:
            print_line(f"The ledger in {path} cannot be written ({error.strerror}). Idle energy is not counted.")
            continue
        ledger.append(event)
        ledger.close()
