"""The ledger survives kills and full disks."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_green.ledger.ledger import Ledger, node_name
from lightning_green.utilities.clock import SimulatedClock, SystemClock
from tests.helpers.ledgers import last_state_of, make_event, read_records
from tests.helpers.processes import environment


def make_ledger(folder, attempt=1, **keywords):
    return Ledger(folder, SimulatedClock("2024-05-01T00:00:00Z", seconds_per_batch=60), attempt, **keywords)


def test_event_has_the_fields_of_the_format(tmp_path):
    ledger = make_ledger(tmp_path)
    ledger.append(make_event("started", global_step=3, reason="because"))
    ledger.close()
    (line,) = (tmp_path / f"ledger.{node_name()}.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record == {
        "v": 2,
        "seq": 1,
        "time_utc": "2024-05-01T00:00:00+00:00",
        "mono_s": record["mono_s"],
        "node": node_name(),
        "pid": os.getpid(),
        "attempt": 1,
        "event": "started",
        "global_step": 3,
        "fit": 0,
        "reason": "because",
        "startup_s": 0.0,
        "meter": "",
    }


def test_next_process_continues_the_sequence(tmp_path):
    for attempt in (1, 2, 3):
        ledger = make_ledger(tmp_path, attempt)
        ledger.append(make_event("started"))
        ledger.append(make_event("paused"))
        ledger.close()
    records = read_records(tmp_path)
    assert [record["seq"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record["attempt"] for record in records] == [1, 1, 2, 2, 3, 3]


def test_clock_set_back_does_not_change_the_order(tmp_path):
    for node, minutes in (("a", (0, 60, 10, 20)), ("b", (5, 15, 70))):
        times = [f"2024-05-01T{m // 60:02}:{m % 60:02}:00+00:00" for m in minutes]
        lines = [
            {"event": "sample", "seq": n, "node": node, "attempt": 1, "time_utc": at} for n, at in enumerate(times)
        ]
        (tmp_path / f"ledger.{node}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for node in "ab":
        seen = [record["seq"] for record in read_records(tmp_path) if record["node"] == node]
        assert seen == sorted(seen)
    assert [record["node"] for record in read_records(tmp_path)][:3] == ["a", "b", "b"]


def test_two_nodes_write_their_own_files(tmp_path):
    clock = SimulatedClock("2024-05-01T00:00:00Z", seconds_per_batch=60)
    first, second = Ledger(tmp_path, clock, 1, node="a"), Ledger(tmp_path, clock, 1, node="b")
    for ledger in (second, first, second):
        ledger.append(make_event("sample"))
        clock.advance("batch")
    assert [record["node"] for record in read_records(tmp_path)] == ["b", "a", "b"]


def test_threads_do_not_mix_lines(tmp_path):
    ledger = Ledger(tmp_path, SystemClock(), 1)
    threads = [
        threading.Thread(target=lambda: [ledger.append(make_event("sample", text="x" * 999)) for _ in range(50)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(record["seq"] for record in read_records(tmp_path)) == list(range(1, 201))


def test_unknown_events_and_fields_are_kept(tmp_path):
    (tmp_path / "ledger.n.jsonl").write_text('{"seq": 1, "event": "of tomorrow", "new": [1]}\n[1]\n\n')
    assert read_records(tmp_path) == [{"seq": 1, "event": "of tomorrow", "new": [1]}]
    known = {"seq": 2, "event": "sample", "time_utc": "2024-05-01T00:00:00+00:00", "of_tomorrow": {"a": [1]}}
    (tmp_path / "ledger.n.jsonl").write_text(json.dumps(known) + "\n")
    (record,) = read_records(tmp_path)
    assert record["of_tomorrow"] == {"a": [1]}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_torn_at_any_byte_nothing_before_it_is_lost(data):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ledger = make_ledger(folder)
        for step in range(4):
            ledger.append(make_event("checkpoint", global_step=step, reason="é" * step))
        ledger.close()
        whole = ledger.path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        ledger.path.write_bytes(whole[:cut])
        ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
        complete = sum(end <= cut for end in ends)
        torn = cut > 0 and cut not in ends
        readable = complete + (torn and cut + 1 in ends)  # all but its line end arrived
        assert [record["global_step"] for record in read_records(folder)] == list(range(readable))

        again = make_ledger(folder, attempt=2)
        again.append(make_event("started"))
        again.close()
        records = read_records(folder)
        assert [record["event"] for record in records] == (
            ["checkpoint"] * readable + ["history_missing"] * torn + ["started"]
        )
        assert [record["seq"] for record in records] == list(range(1, len(records) + 1))


FULL_DISK = """
import resource, sys
from pathlib import Path
from lightning_green.utilities.clock import SystemClock
from lightning_green.ledger.events import Sample
from lightning_green.ledger.ledger import Ledger
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as a full disk: the write fails, the process continues
folder = Path(sys.argv[1])
ledger = Ledger(folder, SystemClock(), 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for step in range(20):
    ledger.append(Sample(global_step=step))
print(ledger.path.stat().st_size)
if len(sys.argv) > 2:  # room again
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    ledger.append(Sample(global_step=20))
    ledger.close()
"""


@pytest.mark.parametrize("room_again", [True, False])
def test_a_disk_that_fills_up_in_the_middle_of_a_line(tmp_path, room_again):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    arguments = [sys.executable, "-c", FULL_DISK, str(tmp_path), *(["room"] if room_again else [])]
    done = subprocess.run(arguments, env=environment(), capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "1000\n"
    assert done.stderr.count("cannot be written") == 1
    assert "Training continues" in done.stderr
    steps = [record["global_step"] for record in read_records(tmp_path)]
    if room_again:
        assert steps == list(range(21))
    else:
        assert 2 < len(steps) < 20
        assert steps == list(range(len(steps)))
        ledger = make_ledger(tmp_path, attempt=2)
        assert [record["event"] for record in read_records(tmp_path)][-1] == "history_missing"
        ledger.close()


def test_a_full_disk_when_it_is_closed_or_synced(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    ledger = make_ledger(tmp_path)
    monkeypatch.setattr("lightning_green.ledger.ledger.os.write", full)
    monkeypatch.setattr("lightning_green.ledger.ledger.os.fsync", full)
    ledger.append(make_event("paused"))
    ledger.sync()
    monkeypatch.undo()
    assert "No space left" in caplog.text
    ledger.close()
    assert [record["event"] for record in read_records(tmp_path)] == ["paused"]


def test_lines_that_are_lost_are_counted(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    ledger = make_ledger(tmp_path)
    monkeypatch.setattr("lightning_green.ledger.ledger.os.write", full)
    for _ in range(3):
        ledger.append(make_event("sample"))
    ledger.close()
    assert "3 lines of the ledger" in caplog.text
    assert "are lost" in caplog.text


def test_last_state_event_is_the_last_one_that_changes_the_state_of_a_fit():
    assert last_state_of([]) is None
    events = [make_event(name).to_json() for name in ("started", "paused", "sample", "of tomorrow")]
    assert last_state_of(events)["event"] == "paused"
