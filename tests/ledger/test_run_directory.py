"""The run directory: its record, its locks and its heartbeats."""

import json
import multiprocessing
import os
import resource
import signal
import socket
import threading
import time

import pytest

from lightning_green.ledger.run_directory import (
    RunDirectory,
    RunIsAliveError,
    archive_directory,
)
from lightning_green.utilities.files import write_json

FORK = multiprocessing.get_context("fork")


def test_record_is_saved(tmp_path):
    directory = RunDirectory(tmp_path / "deep" / "run")
    directory.record["first_start"] = "2024-05-02T00:00:00+00:00"
    directory.save()
    again = RunDirectory(tmp_path / "deep" / "run")
    assert again.record == directory.record
    assert again.record["run_id"]
    assert RunDirectory(tmp_path / "other").record["run_id"] != directory.record["run_id"]


def test_record_is_written_only_if_it_has_changed(tmp_path):
    directory, path = RunDirectory(tmp_path), tmp_path / "run.json"
    directory.save()
    first = path.stat().st_ino  # each write creates a new file
    directory.record["loggers"] = {"a": ["1"]}
    directory.save()
    second = path.stat().st_ino
    assert second != first
    directory.save()
    again = RunDirectory(tmp_path)
    again.save()
    assert path.stat().st_ino == second
    again.record["loggers"]["a"].append("2")
    again.save()
    assert RunDirectory(tmp_path).record["loggers"] == {"a": ["1", "2"]}


def test_record_is_replaced_atomically(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"n": 0})
    writer = FORK.Process(target=lambda: [write_json(path, {"n": n, "pad": "x" * 50_000}) for n in range(10**6)])
    writer.start()
    try:
        seen, until = set(), time.monotonic() + 60
        while len(seen) < 200 and time.monotonic() < until:
            seen.add(json.loads(path.read_text())["n"])
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    assert len(seen) > 1
    assert json.loads(path.read_text())["n"] >= 0


def test_unserializable_value_keeps_the_old_record(tmp_path):
    write_json(tmp_path / "run.json", {"n": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "run.json", {"n": object()})
    assert json.loads((tmp_path / "run.json").read_text()) == {"n": 1}


def write_past_the_limit(path):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        write_json(path, {"pad": "x" * 100_000})
    except OSError:
        os._exit(7)


def test_full_disk_keeps_the_old_record_and_no_partial_file(tmp_path):
    write_json(tmp_path / "run.json", {"n": 1})
    writer = FORK.Process(target=write_past_the_limit, args=(tmp_path / "run.json",))
    writer.start()
    writer.join()
    assert writer.exitcode == 7
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert json.loads((tmp_path / "run.json").read_text()) == {"n": 1}


def test_record_of_another_version_raises(tmp_path):
    write_json(tmp_path / "run.json", {"schema": 99})
    with pytest.raises(RuntimeError, match=r"run\.json was written by another version.*--run-dir"):
        RunDirectory(tmp_path)


def test_damaged_record_raises_value_error(tmp_path):
    (tmp_path / "run.json").write_text('{"schema": 1, "run')
    with pytest.raises(ValueError, match=r"run\.json is not readable as JSON: Unterminated.*--run-dir"):
        RunDirectory(tmp_path)


def hold(path, held):
    directory = RunDirectory(path)
    directory.lock("run")
    held.set()
    time.sleep(60)


def test_second_process_cannot_lock_until_the_first_has_ended(tmp_path):
    held = FORK.Event()
    other = FORK.Process(target=hold, args=(tmp_path, held))
    other.start()
    try:
        assert held.wait(30)
        directory = RunDirectory(tmp_path)
        with pytest.raises(RunIsAliveError, match=f"process {other.pid} on .*--run-dir DIR"):
            directory.lock("run")
        assert directory.is_alive("run")
        with pytest.raises(RunIsAliveError):
            directory.refuse_if_alive("run")
        assert not directory.is_alive("supervisor")
        directory.lock("supervisor")  # another role
    finally:
        os.kill(other.pid, signal.SIGKILL)  # without cleanup
        other.join()
    assert not directory.is_alive("run")
    directory.unlock()
    directory.lock("run")
    directory.unlock()


def test_unlock_releases_the_directory(tmp_path):
    first, second = RunDirectory(tmp_path), RunDirectory(tmp_path)
    first.lock("run")
    with pytest.raises(RunIsAliveError):
        second.lock("run")
    first.unlock()
    first.unlock()  # a second call does nothing
    second.lock("run")
    second.unlock()
    assert not list(tmp_path.glob("*.heartbeat"))


@pytest.mark.parametrize("text", ["", "[1]", '{"at": "noon"}', "{"])
def test_unreadable_heartbeat_does_not_block(tmp_path, text):
    (tmp_path / "run.heartbeat").write_text(text)
    directory = RunDirectory(tmp_path)
    assert not directory.is_alive("run")
    assert directory.was_abandoned("run")  # a power failure can empty the last written file
    directory.lock("run")
    assert not RunDirectory(tmp_path).was_abandoned("run")
    assert json.loads((tmp_path / "run.heartbeat").read_text())["host"] == socket.gethostname()
    directory.unlock()
    assert not directory.was_abandoned("run")


def test_heartbeat_is_written_every_ten_seconds(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("lightning_green.ledger.run_directory.time.monotonic", lambda: now[0])
    directory = RunDirectory(tmp_path)
    directory.beat()  # not locked
    assert not (tmp_path / "run.heartbeat").exists()
    directory.lock("run")
    written = (tmp_path / "run.heartbeat").stat().st_ino
    now[0] += 9.0
    directory.beat()
    assert (tmp_path / "run.heartbeat").stat().st_ino == written
    now[0] += 1.1
    directory.beat()
    assert (tmp_path / "run.heartbeat").stat().st_ino != written
    directory.unlock()


def test_archive_uses_the_first_free_name(tmp_path):
    for expected in ("run.1", "run.2"):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "mark").write_text(expected)
        assert archive_directory(tmp_path / "run") == tmp_path / expected
        assert (tmp_path / expected / "mark").read_text() == expected
    assert not (tmp_path / "run").exists()


def test_is_alive_does_not_block_a_lock(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.lock("run")
    directory.unlock()
    stop = threading.Event()

    def check():
        while not stop.is_set():
            RunDirectory(tmp_path).is_alive("run")

    threads = [threading.Thread(target=check) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            directory.lock("run")
            assert RunDirectory(tmp_path).is_alive("run")
            directory.unlock()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_is_alive_creates_no_files(tmp_path):
    directory = RunDirectory(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert not directory.is_alive("run")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
