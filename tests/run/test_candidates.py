"""Existing run directories and the states of their runs."""

import pytest

from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.run.candidates import Candidate, read_candidates
from lightning_green.utilities.clock import SystemClock
from tests.helpers.ledgers import make_event
from tests.helpers.runs import ONE, OTHER


def write_run(path, *events, **record):
    directory = RunDirectory(path)
    directory.record |= record
    directory.save()
    ledger = Ledger(path, SystemClock(), 1)
    for event in events:
        ledger.append(make_event(event, fit=None if event == "ended" else 0, until="2024-05-02T05:00:00+00:00"))
    ledger.close()


@pytest.mark.parametrize(
    ("events", "states"),
    [
        ([], set()),
        (["started"], {"unfinished"}),
        (["started", "paused"], {"unfinished", "paused"}),
        (["started", "finished"], {"unfinished", "finished"}),  # the script may have more fits
        (["started", "finished", "ended"], {"finished"}),
        (["started", "failed"], {"unfinished"}),
        (["started", "failed", "ended"], {"unfinished", "finished"}),  # the script has handled the failure
    ],
)
def test_state_follows_from_the_ledger(tmp_path, events, states):
    write_run(tmp_path, *events)
    candidate = Candidate.read(tmp_path)
    found = {name for name in ("unfinished", "paused", "finished") if getattr(candidate, f"is_{name}")}
    assert found == states
    assert not candidate.is_alive


def test_run_belongs_to_its_invocation(tmp_path):
    write_run(tmp_path, "started", invocation=ONE.to_json())
    candidate = Candidate.read(tmp_path)
    assert candidate.belongs_to(ONE)
    assert not candidate.belongs_to(OTHER)
    assert not candidate.is_unused


def test_run_without_recorded_invocation_belongs_to_any_unless_unused(tmp_path):
    assert Candidate.read(tmp_path / "unused").is_unused
    assert not Candidate.read(tmp_path / "unused").belongs_to(ONE)
    write_run(tmp_path / "old", "started")
    assert Candidate.read(tmp_path / "old").belongs_to(ONE)


def test_lock_reads_events_that_were_added_since(tmp_path):
    write_run(tmp_path, "started")
    candidate = Candidate.read(tmp_path)
    write_run(tmp_path, "paused", index=3)
    assert not candidate.is_paused
    candidate.lock()
    assert candidate.is_paused
    assert candidate.directory.record["index"] == 3
    candidate.directory.unlock()


def test_candidates_are_ordered_and_damaged_ones_are_skipped(tmp_path, caplog):
    write_run(tmp_path, "started")
    for name, index in (("a", 2), ("b", 1)):
        write_run(tmp_path / "runs" / name, "started", index=index)
    (tmp_path / "runs" / "c").mkdir()
    (tmp_path / "runs" / "c" / "run.json").write_text('{"schema": 99}')
    paths = [candidate.directory.path for candidate in read_candidates(tmp_path)]
    assert paths == [tmp_path, tmp_path / "runs" / "b", tmp_path / "runs" / "a"]
    assert "was written by another version" in caplog.text
