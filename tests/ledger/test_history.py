"""A start that reads what is new knows what one knows that reads the whole ledger."""

import json
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_green.ledger import history as module
from lightning_green.ledger.history import FILE, KEPT_FROM, read_past
from lightning_green.ledger.ledger import last_state_event, read_ledger
from lightning_green.ledger.totals import sum_totals, total, total_by_fit
from lightning_green.run.session import RunOptions
from lightning_green.supervisor.supervisor import open_folder
from lightning_green.utilities.clock import SystemClock
from tests.helpers.sessions import open_session
from tests.ledger.test_totals import WATTS, Book

HOURS = 200


def events():
    """Events of several starts: trained, throttled, held, left, killed, validated, waited for data, went back."""
    one = st.tuples(
        st.sampled_from(["sample", "phase", "state", "checkpoint", "measured", "paused", "killed", "interrupted"]),
        st.sampled_from(["running", "throttled", "held"]),
        st.sampled_from(["training", "validation", "checkpoint", "restart", "held"]),
        st.floats(0.01, 3.0),
        st.integers(0, 50),
    )
    return st.lists(st.one_of(one, st.just("read")), max_size=40)


def write(folder, book, written):
    with open(folder / "ledger.a.jsonl", "ab") as file:
        for record in book.records[written:]:
            file.write(json.dumps(record).encode() + b"\n")
    return len(book.records)


def same(folder):
    """Compare what the past says with the whole ledger, and return it."""
    past, records = read_past(folder), read_ledger(folder)
    assert past.totals == sum_totals(total_by_fit(records))
    assert past.state == last_state_event(records)
    assert past.attempts == max((record["attempt"] for record in records), default=0)
    steps = {}
    for record in records:
        steps[record.get("fit", 0)] = max(steps.get(record.get("fit", 0), 0), record.get("global_step", 0))
    assert past.steps == sum(steps.values())
    for fit in (0, 1):
        speeds = [
            [one for one in found if one.get("seconds_per_batch") is not None and one.get("fit") == fit][-1:]
            for found in (past.records, records)
        ]
        assert speeds[0] == speeds[1]
    return past


@settings(max_examples=150, deadline=None)
@given(events())
def test_it_says_what_the_whole_ledger_says(happened):
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "KEPT_FROM", 1)
        folder, book, written, alive = Path(name), Book([100.0 + hour % 24 for hour in range(HOURS)]), 0, False
        for event in happened:
            if event == "read":
                written = write(folder, book, written)
                same(folder)
                continue
            if not alive:
                book.at += timedelta(hours=1.0)
                book.start(startup_hours=0.05)
            what, state, phase, hours, step = event
            more = {"global_step": step, "fit": step % 2, "data_wait_s": hours * 60.0}
            if what == "measured":
                more |= {"seconds_per_batch": hours}
            book.at, book.joules = book.at + timedelta(hours=hours), book.joules + hours * 1e6
            book.write("decision" if what == "measured" else "sample" if what == "killed" else what, **more)
            book.now |= {"state": state, "phase": phase, "speed": 0.8 if state == "throttled" else 1.0}
            alive = what not in ("paused", "killed", "interrupted")
        write(folder, book, written)
        same(folder)
        same(folder)


@pytest.fixture
def long(tmp_path):
    """Return the folder of a run with a long ledger that was read once, and its book."""
    book = Book([100.0 + hour % 24 for hour in range(HOURS)])
    book.start()
    for _ in range(KEPT_FROM + 20):
        book.work(0.1)
    write(tmp_path, book, 0)
    assert len(read_past(tmp_path).records) == KEPT_FROM + 21
    return tmp_path, book


def test_of_what_was_read_before_only_what_is_asked_for_is_kept(long):
    folder, book = long
    written = len(book.records)
    book.work(0.1)
    write(folder, book, written)
    past = same(folder)
    assert [record["event"] for record in past.records] == ["started", "sample"]
    assert len(past.totals.segments) == KEPT_FROM + 21


def test_the_next_start_goes_on_from_it(long, tmp_path, monkeypatch):
    folder, _ = long
    whole = shutil.copytree(folder, tmp_path / "whole")
    (whole / FILE).unlink()
    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
    told = []
    for path in (folder, whole):
        run, _ = open_session(path, RunOptions(meter=100.0, clock=SystemClock()))
        run.start()
        told.append((run.attempt, run.summary()["energy/kwh"], len(run.past)))
        run.end()
        run.run.end(cleanly=True)
    kwh = WATTS * 0.1 * (KEPT_FROM + 20) / 1000
    assert told == [(2, pytest.approx(kwh, rel=1e-4), 1), (2, pytest.approx(kwh, rel=1e-4), KEPT_FROM + 21)]


def test_an_event_that_this_version_did_not_write_is_in_no_total_and_keeps_nobody_from_starting(long, caplog):
    folder, book = long
    before = read_past(folder).totals.kwh
    strange = [{"event": "paused"}, {**book.records[-1], "joules": {"gpu": {"value": 1e9, "quality": "guessed"}}}, {}]
    with open(folder / "ledger.a.jsonl", "a") as file:
        file.writelines(json.dumps(record) + "\n" for record in strange)
    past = read_past(folder)
    assert past.records[-3:] == strange
    assert past.state == {"event": "paused"}
    assert [line for line in caplog.messages if "3 events of the ledger are in no total" in line]
    assert total(read_ledger(folder)).kwh == past.totals.kwh >= before
    folder = open_folder(folder, fresh=True, say=lambda line: None)
    folder.unlock()


def test_a_later_start_than_that_of_the_last_event_counts(long):
    folder, book = long
    with open(folder / "ledger.a.jsonl", "a") as file:
        for _ in range(KEPT_FROM):
            file.write(json.dumps({**book.records[-1], "event": "history_missing", "attempt": 2}) + "\n")
        file.write(json.dumps({**book.records[-1], "event": "decision"}) + "\n")
    assert [read_past(folder).attempts for _ in range(3)] == [2, 2, 2]


def test_a_short_ledger_is_read_without_writing(tmp_path):
    book = Book([100.0] * 9)
    book.start()
    write(tmp_path, book, 0)
    assert same(tmp_path).attempts == 1
    assert not (tmp_path / FILE).exists()
    assert read_past(tmp_path / "nothing") == ([], {})


@pytest.mark.parametrize("how", ["changed", "shorter", "another", "other format", "damaged", "not ours", "empty"])
def test_what_does_not_belong_to_the_ledger_is_not_used(long, how):
    folder, book = long
    ledger, kept = folder / "ledger.a.jsonl", folder / FILE
    if how == "changed":
        book.records[-1]["joules"]["gpu"]["value"] += 1.0
        ledger.unlink()
        write(folder, book, 0)
    elif how == "shorter":
        ledger.write_bytes(b"".join(line + b"\n" for line in ledger.read_bytes().split(b"\n")[:10]))
    elif how == "another":
        other = Book([300.0] * HOURS)
        other.start()
        for _ in range(KEPT_FROM + 50):
            other.work(0.1)
        ledger.unlink()
        write(folder, other, 0)
    elif how == "other format":
        told = json.loads(kept.read_text())
        kept.write_text(json.dumps({**told, "format": 0, "fits": {"0": {**told["fits"]["0"], "exits": 9}}}))
    else:
        kept.write_text({"damaged": kept.read_text()[:500], "not ours": '["a"]', "empty": ""}[how])
    same(folder)


def test_a_line_that_was_cut_off_is_read_once_it_is_whole(tmp_path):
    book = Book([100.0] * HOURS)
    book.start()
    for _ in range(KEPT_FROM + 20):
        book.work(0.1)
    write(tmp_path, book, 0)
    ledger = tmp_path / "ledger.a.jsonl"
    whole = ledger.read_bytes()
    for cut in (1, 2, 50):  # without the end of the line the last event is whole, and counts once
        ledger.write_bytes(whole[:-cut])
        same(tmp_path)
        assert not (tmp_path / FILE).exists()
    ledger.write_bytes(whole[:-1] + b"\n" + whole[-50:])
    same(tmp_path)
    same(tmp_path)


def test_with_a_second_node_the_whole_ledger_is_read(long):
    folder, book = long
    other = Book([100.0] * HOURS)
    other.start()
    for record in other.records:
        record |= {"node_rank": 1, "node": "b"}
    (folder / "ledger.b.jsonl").write_text(json.dumps(other.records[0]) + "\n")
    past = read_past(folder)
    assert len(past.records) == len(book.records) + 1
    assert set(past.totals.joules_by_node) == {0, 1}


def test_a_folder_that_cannot_be_written_is_read(long, tmp_path):
    folder, _ = long
    (folder / FILE).unlink()
    (folder / FILE).mkdir()  # no file can be moved there, for the superuser either
    same(folder)
    shutil.rmtree(folder / FILE)
    same(folder)
    assert (folder / FILE).exists()
