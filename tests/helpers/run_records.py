"""Ledger records of a run with a pause in process, a planned exit and a restart."""

from datetime import datetime, timedelta, timezone

START = datetime(2024, 5, 2, 16, tzinfo=timezone.utc)


def make_record(hours, name, attempt=1, state="running", joules=0.0, intensity=400.0, node="a", **fields):
    return {
        "v": 1,
        "seq": 0,
        "time_utc": (START + timedelta(hours=hours)).isoformat(),
        "node": node,
        "attempt": attempt,
        "event": name,
        "phase": "training",
        "state": state,
        "joules": {"other": {"value": joules, "quality": "modelled"}},
        "intensity": None if intensity is None else {"value": intensity, "kind": "average/lifecycle", "source": "test"},
        "pue": 1.0,
        "global_step": 0,
        **fields,
    }


def run_records():
    """Run 1 h, hold 2 h, run 1 h, exit for 6 h with a new plan of the supervisor, restart in 0.5 h, run 1.5 h."""
    return [
        make_record(0, "started", startup_s=0.0, meter="constant power (other 1000 W), modelled"),
        make_record(1, "state", state="held", joules=3.6e6),
        make_record(3, "state", joules=4.6e6),
        make_record(4, "paused", joules=8.2e6, until=(START + timedelta(hours=10)).isoformat()),
        {"v": 1, "time_utc": (START + timedelta(hours=6)).isoformat(), "node": "a", "attempt": 1, "event": "decision",
         "state": "out", "deadline": (START + timedelta(hours=14)).isoformat()},
        make_record(10.5, "started", attempt=2, startup_s=1800.0, joules=1.8e6, intensity=200.0),
        make_record(12, "finished", attempt=2, joules=7.2e6, intensity=200.0),
    ]  # fmt: skip


def at(hours):
    """Return a time in hours after ``START``."""
    return START + timedelta(hours=hours)
