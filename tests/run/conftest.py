"""Fixtures for runs."""

import pytest

from lightning_green.run.coordinator import open_run
from lightning_green.utilities.clock import SimulatedClock
from tests.helpers.runs import ONE, START, fit
from tests.helpers.sessions import open_session, options


@pytest.fixture
def claim(tmp_path):
    """Return a function that claims a run in ``tmp_path/run`` and its first fit. All runs are ended after the test."""
    runs = []

    def claim_run(invocation=ONE, identity=None, needs_state=True):
        identity = fit() if identity is None else identity
        run, messages = open_run(tmp_path / "run", SimulatedClock(START), invocation, identity, needs_state)
        runs.append(run)
        return run, run.claim_fit(identity), messages

    yield claim_run
    for run in runs:
        run.end(cleanly=False)


@pytest.fixture
def opened(tmp_path):
    """Return a function that opens the run in ``tmp_path/run``; what it opened is closed at the end."""
    runs = []

    def open_it(path=None, announce=True, **given):
        run, printed = open_session(path or tmp_path / "run", options(**given))
        runs.append(run)
        run.start()
        if announce:
            run.announce()
        return run, printed

    yield open_it
    for run in runs:
        run.end()
        run.run.end(cleanly=False)
