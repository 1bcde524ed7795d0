"""A run's folder: its name, its record, and who may be in it."""

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
    HEARTBEAT_STALE_SECONDS,
    RunDirectory,
    RunIsAliveError,
    archive_directory,
)
from lightning_green.utilities.files import write_json

FORK = multiprocessing.get_context("fork")


def test_the_record_is_kept(tmp_path):
    folder = RunDirectory(tmp_path / "deep" / "run")
    folder.record["first_start"] = "2024-05-02T00:00:00+00:00"
    folder.save()
    again = RunDirectory(tmp_path / "deep" / "run")
    assert again.record == folder.record
    assert again.record["run_id"]
    assert RunDirectory(tmp_path / "other").record["run_id"] != folder.record["run_id"]


def test_a_record_is_written_where_there_is_something_new_in_it(tmp_path):
    folder, path = RunDirectory(tmp_path), tmp_path / "run.json"
    folder.save()
    first = path.stat().st_ino  # each writing makes a file of its own
    folder.record["loggers"] = {"a": ["1"]}
    folder.save()
    second = path.stat().st_ino
    assert second != first
    folder.save()
    again = RunDirectory(tmp_path)
    again.save()
    assert path.stat().st_ino == second
    again.record["loggers"]["a"].append("2")
    again.save()
    assert RunDirectory(tmp_path).record["loggers"] == {"a": ["1", "2"]}


def test_a_reader_never_sees_half_of_a_record(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"n": 0})
    writer = FORK.Process(target=lambda: [write_json(path, {"n": n, "pad": "x" * 50_000}) for n in range(10**6)])
    writer.start()
    try:
        seen = {json.loads(path.read_text())["n"] for _ in range(2000)}
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    assert len(seen) > 1
    assert json.loads(path.read_text())["n"] >= 0


def test_a_value_that_cannot_be_written_leaves_the_old_record(tmp_path):
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


def test_a_full_disk_keeps_no_half_of_a_record(tmp_path):
    write_json(tmp_path / "run.json", {"n": 1})
    writer = FORK.Process(target=write_past_the_limit, args=(tmp_path / "run.json",))
    writer.start()
    writer.join()
    assert writer.exitcode == 7
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert json.loads((tmp_path / "run.json").read_text()) == {"n": 1}


def test_a_record_of_another_version_is_refused_and_says_what_to_do(tmp_path):
    write_json(tmp_path / "run.json", {"schema": 99})
    with pytest.raises(RuntimeError, match=r"run\.json was written by another version.*--run-dir"):
        RunDirectory(tmp_path)


def test_a_damaged_record_is_a_value_error(tmp_path):
    (tmp_path / "run.json").write_text('{"schema": 1, "run')
    with pytest.raises(ValueError, match="Unterminated"):
        RunDirectory(tmp_path)


def hold(path, held):
    folder = RunDirectory(path)
    folder.lock("run")
    held.set()
    time.sleep(60)


def test_a_second_process_is_kept_out_until_the_first_is_gone(tmp_path):
    held = FORK.Event()
    other = FORK.Process(target=hold, args=(tmp_path, held))
    other.start()
    try:
        assert held.wait(30)
        folder = RunDirectory(tmp_path)
        with pytest.raises(RunIsAliveError, match=f"process {other.pid} on .*--run-dir DIR"):
            folder.lock("run")
        assert folder.is_alive("run")
        with pytest.raises(RunIsAliveError):
            folder.refuse_if_alive("run")
        assert not folder.is_alive("supervisor")
        folder.lock("supervisor")  # which is another role
    finally:
        os.kill(other.pid, signal.SIGKILL)  # it cannot say goodbye
        other.join()
    assert not folder.is_alive("run")
    folder.unlock()
    folder.lock("run")
    folder.unlock()


def test_who_leaves_lets_others_in(tmp_path):
    first, second = RunDirectory(tmp_path), RunDirectory(tmp_path)
    first.lock("run")
    with pytest.raises(RunIsAliveError):
        second.lock("run")
    first.unlock()
    first.unlock()  # twice is as good as once
    second.lock("run")
    second.unlock()
    assert not list(tmp_path.glob("*.heartbeat"))


@pytest.mark.parametrize(("age", "alive"), [(5.0, True), (HEARTBEAT_STALE_SECONDS + 5.0, False)])
def test_a_heartbeat_of_another_machine_counts_while_it_is_young(tmp_path, age, alive):
    """A lock does not always reach over a network file system."""
    folder = RunDirectory(tmp_path)
    write_json(tmp_path / "run.heartbeat", {"host": "another-machine", "pid": 4711, "at": time.time() - age})
    assert folder.is_alive("run") is alive
    if alive:
        with pytest.raises(RunIsAliveError, match="process 4711 on another-machine") as refused:
            folder.lock("run")
        assert refused.tb is not None  # it holds what the refused call held
        os.remove(tmp_path / "run.heartbeat")
    folder.lock("run")  # also: being refused left no lock behind
    folder.unlock()


@pytest.mark.parametrize("text", ["", "[1]", '{"at": "noon"}', "{"])
def test_a_heartbeat_that_cannot_be_read_keeps_nobody_out(tmp_path, text):
    (tmp_path / "run.heartbeat").write_text(text)
    folder = RunDirectory(tmp_path)
    assert not folder.is_alive("run")
    assert folder.was_abandoned("run")  # a power failure empties what was written last
    folder.lock("run")
    assert not RunDirectory(tmp_path).was_abandoned("run")
    assert json.loads((tmp_path / "run.heartbeat").read_text())["host"] == socket.gethostname()
    folder.unlock()
    assert not folder.was_abandoned("run")


def test_a_heart_beats_every_ten_seconds_and_not_at_every_call(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("lightning_green.ledger.run_directory.time.monotonic", lambda: now[0])
    folder = RunDirectory(tmp_path)
    folder.beat()  # nobody is in it
    assert not (tmp_path / "run.heartbeat").exists()
    folder.lock("run")
    written = (tmp_path / "run.heartbeat").stat().st_ino
    now[0] += 9.0
    folder.beat()
    assert (tmp_path / "run.heartbeat").stat().st_ino == written
    now[0] += 1.1
    folder.beat()
    assert (tmp_path / "run.heartbeat").stat().st_ino != written
    folder.unlock()


def test_a_folder_is_put_aside_under_the_first_free_name(tmp_path):
    for expected in ("run.1", "run.2"):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "mark").write_text(expected)
        assert archive_directory(tmp_path / "run") == tmp_path / expected
        assert (tmp_path / expected / "mark").read_text() == expected
    assert not (tmp_path / "run").exists()


def test_who_only_looks_does_not_keep_anybody_out(tmp_path):
    folder = RunDirectory(tmp_path)
    folder.lock("run")
    folder.unlock()
    stop = threading.Event()

    def look():
        while not stop.is_set():
            RunDirectory(tmp_path).is_alive("run")

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            folder.lock("run")
            assert RunDirectory(tmp_path).is_alive("run")
            folder.unlock()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_looking_leaves_no_trace(tmp_path):
    folder = RunDirectory(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert not folder.is_alive("run")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
