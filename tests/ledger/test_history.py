"""The history of a run, from random sequences of events."""

import json
import tempfile
from datetime import timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_green.ledger.account import account_by_fit, total
from lightning_green.ledger.history import RunHistory, read_history
from lightning_green.ledger.ledger import last_state_event, read_ledger
from lightning_green.ledger.totals import sum_totals
from lightning_green.supervisor.run_directory import open_run_directory
from tests.helpers.event_book import Book

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


def check(folder):
    """Compare the history with the events, and return it."""
    history, events = read_history(folder), read_ledger(folder)
    accounts = account_by_fit(events)
    assert history.totals == sum_totals({number: account.totals for number, account in accounts.items()})
    assert history.state == last_state_event(events)
    assert history.attempts == max((event.attempt for event in events), default=0)
    steps = {}
    for event in events:
        steps[event.fit or 0] = max(steps.get(event.fit or 0, 0), event.global_step or 0)
    assert history.steps == sum(steps.values())
    return history


@settings(max_examples=150, deadline=None)
@given(events())
def test_history_is_that_of_the_events_at_any_time(happened):
    with tempfile.TemporaryDirectory() as name:
        folder, book, written, alive = Path(name), Book([100.0 + hour % 24 for hour in range(HOURS)]), 0, False
        for event in happened:
            if event == "read":
                written = write(folder, book, written)
                check(folder)
                continue
            if not alive:
                book.at += timedelta(hours=1.0)
                book.start(startup_hours=0.05)
            what, state, phase, hours, step = event
            more = {"global_step": step, "fit": step % 2, "data_wait_s": hours * 60.0}
            book.at, book.joules = book.at + timedelta(hours=hours), book.joules + hours * 1e6
            book.write("decision" if what == "measured" else "sample" if what == "killed" else what, **more)
            book.now |= {"state": state, "phase": phase, "speed": 0.8 if state == "throttled" else 1.0}
            alive = what not in ("paused", "killed", "interrupted")
        write(folder, book, written)
        check(folder)


def test_events_of_another_version_are_skipped_with_a_warning(tmp_path, caplog):
    book = Book([100.0] * HOURS)
    book.start()
    book.work(0.1)
    write(tmp_path, book, 0)
    before = read_history(tmp_path).totals.kwh
    strange = [{"event": "paused"}, {**book.records[-1], "joules": {"gpu": {"value": 1e9, "quality": "guessed"}}}, {}]
    with open(tmp_path / "ledger.a.jsonl", "a") as file:
        file.writelines(json.dumps(record) + "\n" for record in strange)
    history = read_history(tmp_path)
    assert len(history.events) == history.count == 2
    assert history.state.name == "started"
    assert [line for line in caplog.messages if "3 events of the ledger are skipped" in line]
    assert total(read_ledger(tmp_path)).kwh == history.totals.kwh == before > 0.0
    folder = open_run_directory(tmp_path, fresh=True, print_line=lambda line: None)
    folder.unlock()


def test_history_of_an_empty_directory_is_empty(tmp_path):
    assert read_history(tmp_path) == RunHistory()


def test_known_history_is_read_again_after_another_event(tmp_path):
    book = Book([100.0] * HOURS)
    book.start()
    written = write(tmp_path, book, 0)
    known = read_history(tmp_path)
    assert read_history(tmp_path, known) is known
    book.work(0.1)
    write(tmp_path, book, written)
    now = read_history(tmp_path, known)
    assert (len(known.events), len(now.events)) == (1, 2)
    assert now.totals.kwh > known.totals.kwh


def test_a_line_that_was_cut_off_counts_once_it_is_complete(tmp_path):
    book = Book([100.0] * HOURS)
    book.start()
    book.work(0.1)
    write(tmp_path, book, 0)
    ledger = tmp_path / "ledger.a.jsonl"
    whole = ledger.read_bytes()
    for cut, count in ((1, 2), (2, 1), (50, 1)):  # without its line end, the last event is complete
        ledger.write_bytes(whole[:-cut])
        assert len(check(tmp_path).events) == count
    ledger.write_bytes(whole)
    assert len(check(tmp_path).events) == 2


def test_the_energy_of_a_second_node_is_added(tmp_path):
    book, other = Book([100.0] * HOURS), Book([100.0] * HOURS)
    for one in (book, other):
        one.start()
        one.work(0.1)
    write(tmp_path, book, 0)
    lines = [record | {"node_rank": 1, "node": "b", "event": f"node_{record['event']}"} for record in other.records]
    (tmp_path / "ledger.b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    history = read_history(tmp_path)
    assert len(history.events) == 4
    assert history.totals.by_node[1].joules == history.totals.by_node[0].joules > 0.0
