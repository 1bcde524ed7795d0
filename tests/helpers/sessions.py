"""Opening the session of a fit without a Trainer."""

from datetime import datetime, timezone

from lightning_green.run.coordinator import open_run
from lightning_green.run.options import RunOptions
from lightning_green.run.run import FitIdentity
from lightning_green.run.session import Session
from lightning_green.utilities.clock import SimulatedClock, SystemClock

START = datetime(2024, 5, 2, tzinfo=timezone.utc)


def clock(**seconds):
    """Return a simulated clock that begins at ``START``."""
    return SimulatedClock(START, **{"seconds_per_batch": 600.0, "seconds_per_restart": 300.0, **seconds})


def options(**given):
    """Return options with 300 W and a simulated clock."""
    return RunOptions(**{"meter": 300.0, "clock": clock(), **given})


def open_session(path, options):
    """Claim a run in ``path`` and open its first fit; return the session and the lines for the user."""
    run, messages = open_run(path, options.clock or SystemClock())
    claimed = run.claim_fit(FitIdentity())
    return Session(run, options, claimed.number, run.continuing and claimed.continuing), messages


def advance(session, batches):
    """Let the simulated time of some batches pass."""
    for _ in range(batches):
        session.clock.advance("batch")
        session.sample_if_due()
