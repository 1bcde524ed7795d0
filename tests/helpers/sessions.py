"""Opening the session of a fit without a Trainer."""

from lightning_green.run.coordinator import open_run
from lightning_green.run.run import FitIdentity
from lightning_green.run.session import Session
from lightning_green.utilities.clock import SystemClock


def open_session(path, options):
    """Claim a run in ``path`` and open its first fit; return the session and the lines for the user."""
    run, messages = open_run(path, options.clock or SystemClock())
    claimed = run.claim_fit(FitIdentity())
    return Session(run, options, claimed.number, run.continuing and claimed.continuing), messages
