"""Memory and time do not depend on the length of a ledger: this is measured in processes of their own."""

import json
import os
import subprocess
import sys

import pytest

from lightning_green.ledger.history import read_history
from lightning_green.ledger.ledger import Ledger, read_ledger
from lightning_green.utilities.clock import SystemClock
from tests.helpers.event_book import Book
from tests.helpers.ledgers import make_event
from tests.helpers.processes import environment

MEGABYTE = 2**20
MEGABYTES = int(os.environ.get("LIGHTNING_GREEN_LEDGER_MB", "50"))
MEASURE = """
import sys
from pathlib import Path
from lightning_green.ledger.history import read_history
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.report.status import status_text
from lightning_green.supervisor.run_directory import open_run_directory
def peak():  # in KiB; ru_maxrss would contain that of the process that has started this one
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

Path("/proc/self/clear_refs").write_text("5")  # the peak is that from now on
before = peak()
path = Path(sys.argv[1])
text = status_text(RunDirectory(path))
open_run_directory(path, fresh=False).unlock()
print((peak() - before) // 1024)
print(text)
"""


def write_samples(path, megabytes):
    """Write a ledger of this size, with one event every 15 s and a new intensity in each, and return its lines."""
    book = Book([100.0 + hour % 7 for hour in range(24 * 4000)])
    book.start()
    written = lines = 0
    with open(path, "w") as file:
        while written < megabytes * MEGABYTE:
            if lines:
                book.work(15.0 / 3600.0)
            book.records[-1]["global_step"] = lines
            written += file.write(json.dumps(book.records[-1]) + "\n")
            lines += 1
            del book.records[:-1]
    return lines


def measure(folder):
    """Return the memory in MB that the status and a start of the supervisor take, and the status."""
    arguments = [sys.executable, "-c", MEASURE, str(folder)]
    done = subprocess.run(arguments, env=environment(), capture_output=True, text=True, timeout=600, check=True)
    used, _, text = done.stdout.partition("\n")
    return int(used), text


@pytest.mark.slow
def test_memory_of_a_long_ledger_is_bounded(tmp_path):
    lines = write_samples(tmp_path / "ledger.a.jsonl", MEGABYTES)
    used, text = measure(tmp_path)
    print(f"{MEGABYTES} MB, {lines} lines: {used} MB of memory")
    assert used < 100
    assert f"killed at about step {lines - 1}" in text


def test_memory_of_a_long_line_is_bounded(tmp_path):
    book = Book([100.0] * 10)
    book.start()
    path = tmp_path / "ledger.a.jsonl"
    with open(path, "wb") as file:
        file.write(json.dumps(book.records[0]).encode() + b"\n")
        file.truncate(400 * MEGABYTE)  # a line of NUL bytes without an end, which takes no space on the disk
    used, text = measure(tmp_path)
    assert used < 60
    assert "killed at about step 0" in text
    ledger = Ledger(tmp_path, SystemClock(), 2, node="a")  # reads only the end
    ledger.append(make_event("sample", global_step=7))
    ledger.close()
    assert [event.name for event in read_ledger(tmp_path)] == ["started", "history_missing", "sample"]


def test_sequence_continues_after_the_last_numbered_event(tmp_path):
    path = tmp_path / "ledger.a.jsonl"
    path.write_text('{"event": "sample", "seq": 7}\n' + '{"event": "new", "seq": "x"}\n' * 50_000)
    ledger = Ledger(tmp_path, SystemClock(), 1, node="a")
    assert ledger.append(make_event("sample")).seq == 8
    ledger.close()


def test_old_events_that_matter_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_green.ledger.history._MAX_BYTES", 20_000)
    book = Book([100.0] * 200)
    book.start()
    book.work(1.0, event="state", state="held")
    book.work(0.0, event="decision")
    book.records[-1]["deadline"] = "2024-06-01T00:00:00+00:00"
    for step in range(300):
        book.work(0.1)
        book.records[-1]["global_step"] = step
    (tmp_path / "ledger.a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in book.records))
    history = read_history(tmp_path)
    assert history.count == 303
    assert len(history.events) < 100
    assert [event.name for event in history.events[:4]] == ["started", "state", "decision", "sample"]
    assert (history.state.name, history.steps) == ("started", 299)


def test_long_work_is_joined_without_changing_its_energy(tmp_path, monkeypatch):
    book = Book([100.0 + hour for hour in range(200)])
    book.start()
    for _ in range(500):
        book.work(0.1)
    (tmp_path / "ledger.a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in book.records))
    exact = read_history(tmp_path).totals
    monkeypatch.setattr("lightning_green.ledger.account._MAX_SEGMENTS", 100)
    joined = read_history(tmp_path).totals
    assert len(joined.segments) <= 100 < len(exact.segments)
    assert sum(one.joules for one in joined.segments) == pytest.approx(sum(one.joules for one in exact.segments))
    assert joined.segments[0].start == exact.segments[0].start
    assert joined.segments[-1].end == exact.segments[-1].end
    assert joined.kwh == exact.kwh
