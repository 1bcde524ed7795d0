"""Claiming runs and writing the events of their fits."""

from datetime import datetime, timezone

from lightning_green.run.identity import Invocation
from lightning_green.run.run import FitIdentity
from tests.helpers.ledgers import make_event

START = datetime(2024, 5, 2, tzinfo=timezone.utc)
ONE, OTHER = (Invocation("/home/me/train.py", ("--lr", lr), "/home/me") for lr in ("0.1", "0.2"))


def fit(lr=0.1, weights="w", thread=""):
    """Return the identity of a fit."""
    return FitIdentity({"hparams": {"lr": lr}}, weights, thread)


def write(run, *events, fit=0):
    """Append events of a fit to the ledger of a run and save its record."""
    for event in events:
        run.ledger.append(make_event(event, fit=fit, global_step=7, until=START.isoformat()))
    run.folder.save()


def end(run, *events, cleanly=False):
    """Append events to a run and end it in this process."""
    write(run, *events)
    run.end(cleanly)


def set_supervisor(monkeypatch, attempt, session="s"):
    """Set the environment variables of an attempt of a supervisor."""
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "not a process")
    monkeypatch.setenv("LIGHTNING_GREEN_ATTEMPT", f"{session}/{attempt}")
